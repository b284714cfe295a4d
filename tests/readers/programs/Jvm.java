// Jackson and Gson: strict as they come, and with what they can be made to let pass.

import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.json.JsonMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import com.google.gson.Gson;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.Base64;

public class Jvm {
    static final String[] WORDS = {"max_tokens", "max_completion_tokens", "max_output_tokens", "n", "best_of"};
    static final ObjectMapper STRICT = new ObjectMapper();
    static final ObjectMapper LENIENT = JsonMapper.builder()
        .configure(JsonParser.Feature.ALLOW_COMMENTS, true)
        .configure(JsonParser.Feature.ALLOW_YAML_COMMENTS, true)
        .configure(JsonParser.Feature.ALLOW_SINGLE_QUOTES, true)
        .configure(JsonParser.Feature.ALLOW_UNQUOTED_FIELD_NAMES, true)
        .configure(JsonParser.Feature.ALLOW_UNQUOTED_CONTROL_CHARS, true)
        .configure(JsonParser.Feature.ALLOW_BACKSLASH_ESCAPING_ANY_CHARACTER, true)
        .configure(JsonParser.Feature.ALLOW_NON_NUMERIC_NUMBERS, true)
        .configure(JsonParser.Feature.ALLOW_NUMERIC_LEADING_ZEROS, true)
        .configure(JsonParser.Feature.ALLOW_MISSING_VALUES, true)
        .configure(JsonParser.Feature.ALLOW_TRAILING_COMMA, true)
        .build();

    public static class Chat {
        public String model;
        public Integer max_tokens, max_completion_tokens, max_output_tokens, n, best_of;
        public Boolean stream;
    }

    static final ObjectMapper TYPED = new ObjectMapper().configure(DeserializationFeature.FAIL_ON_UNKNOWN_PROPERTIES, false);

    static void note(ArrayNode told, String how, JsonNode found) {
        if (found == null || !found.isObject()) return;
        ObjectNode one = told.addObject();
        one.put("how", how);
        JsonNode model = found.get("model");
        if (model == null || model.isNull()) one.putNull("model");
        else one.put("model", model.isTextual() ? model.asText() : model.toString());
        ObjectNode limits = one.putObject("limits");
        for (String word : WORDS) {
            JsonNode value = found.get(word);
            if (value == null || value.isNull()) continue;
            double number = value.asDouble(1);
            if (Double.isFinite(number)) limits.put(word, number);
            else limits.put(word, Double.toString(number));
        }
        JsonNode stream = found.get("stream");
        one.put("stream", stream != null && stream.asBoolean(false));
        one.putArray("evil");
    }

    interface Read { JsonNode of(byte[] body) throws Exception; }

    static void tried(ArrayNode told, String how, byte[] body, Read read) {
        try {
            note(told, how, read.of(body));
        } catch (Exception | StackOverflowError error) {
            // A server would refuse it.
        }
    }

    public static void main(String[] words) throws Exception {
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.US_ASCII), 1 << 20);
        Gson gson = new Gson();
        String line;
        while ((line = in.readLine()) != null) {
            byte[] body = Base64.getDecoder().decode(line);
            ArrayNode told = STRICT.createArrayNode();
            tried(told, "Jackson", body, STRICT::readTree);
            tried(told, "Jackson of text", body, one -> STRICT.readTree(new String(one, StandardCharsets.UTF_8)));
            tried(told, "Jackson, all let pass", body, LENIENT::readTree);
            tried(told, "Jackson into a class", body, one -> STRICT.valueToTree(TYPED.readValue(one, Chat.class)));
            tried(told, "Gson", body, one -> STRICT.readTree(
                com.google.gson.JsonParser.parseString(new String(one, StandardCharsets.UTF_8)).toString()));
            tried(told, "Gson into a class", body, one -> STRICT.valueToTree(
                gson.fromJson(new String(one, StandardCharsets.UTF_8), Chat.class)));
            System.out.println(STRICT.writeValueAsString(told));
            System.out.flush();
        }
    }
}
