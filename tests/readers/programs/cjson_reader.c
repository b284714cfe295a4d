/* cJSON: the first of several keys, in the right case and in either. A line of base64 in, a line of JSON out. */
#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const WORDS[] = {"max_tokens", "max_completion_tokens", "max_output_tokens", "n", "best_of"};

static int value_of(int letter) {
    const char *all = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *at = letter ? strchr(all, letter) : NULL;
    return at ? (int)(at - all) : -1;
}

static size_t decode(const char *text, char *out) {
    size_t size = 0;
    unsigned bits = 0;
    int held = 0;
    for (; value_of(*text) >= 0; text++) {
        bits = bits << 6 | (unsigned)value_of(*text);
        held += 6;
        if (held >= 8) {
            held -= 8;
            out[size++] = (char)(bits >> held & 0xff);
        }
    }
    out[size] = 0;
    return size;
}

static void note(cJSON *told, const char *how, const cJSON *found, int exact) {
    cJSON *(*get)(const cJSON *, const char *) =
        exact ? cJSON_GetObjectItemCaseSensitive : cJSON_GetObjectItem;
    cJSON *one = cJSON_CreateObject(), *limits = cJSON_CreateObject();
    const cJSON *model = get(found, "model"), *stream = get(found, "stream");
    cJSON_AddStringToObject(one, "how", how);
    cJSON_AddItemToObject(one, "model", cJSON_IsString(model) ? cJSON_CreateString(model->valuestring) : cJSON_CreateNull());
    for (size_t at = 0; at < sizeof WORDS / sizeof *WORDS; at++) {
        const cJSON *value = get(found, WORDS[at]);
        char text[40];
        double number = 0;
        if (cJSON_IsNumber(value)) number = value->valuedouble;
        else if (cJSON_IsString(value)) number = strtod(value->valuestring, NULL);
        else continue;
        snprintf(text, sizeof text, "%.17g", number); /* also what is not finite */
        cJSON_AddStringToObject(limits, WORDS[at], text);
    }
    cJSON_AddItemToObject(one, "limits", limits);
    cJSON_AddBoolToObject(one, "stream", cJSON_IsTrue(stream) || (cJSON_IsNumber(stream) && stream->valueint));
    cJSON_AddItemToObject(one, "evil", cJSON_CreateArray());
    cJSON_AddItemToArray(told, one);
}

int main(int count, char **words) {
    int folds = count > 1 && !strcmp(words[1], "folding");
    char *line = NULL;
    size_t room = 0;
    ssize_t size;
    while ((size = getline(&line, &room, stdin)) > 0) {
        char *body = malloc((size_t)size + 1);
        size_t length = decode(line, body);
        cJSON *told = cJSON_CreateArray();
        cJSON *found = cJSON_ParseWithLength(body, length);
        if (cJSON_IsObject(found)) note(told, "cJSON", found, !folds);
        cJSON_Delete(found);
        found = cJSON_Parse(body); /* up to the first NUL */
        if (cJSON_IsObject(found)) note(told, "cJSON of a string", found, !folds);
        cJSON_Delete(found);
        char *out = cJSON_PrintUnformatted(told);
        puts(out);
        fflush(stdout);
        free(out);
        cJSON_Delete(told);
        free(body);
    }
    free(line);
    return 0;
}
