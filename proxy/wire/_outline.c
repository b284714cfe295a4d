/* proxy.wire.outline.outline_slowly in C, three of proxy.wire.json_strings and one of proxy.wire.media_places: same arguments, same results,
 * whatever the bytes.
 *
 * Strings are crossed with memchr from quote to quote, so that an image costs what reading its memory does.
 * Nothing is read outside of data[pos:len], and nothing is kept.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <string.h>

enum { OUTSIDE, IN_STRING, ESCAPED, COLON_NEXT, ENDED, BROKEN, IN_VALUE = 8, VALUE_NEXT = 24 };
enum { LONGEST_KEY = 160, MOST_KEYS = 1000, MOST_LEVELS = 1000 };

/* What a byte is outside of strings. */
enum { PLAIN, QUOTE, OPENS, CLOSES, COLON, COMMA, BAD };
static unsigned char kinds[256];
static unsigned char odd[256]; /* in a key: an escape, a control character, no ASCII */

static void make_tables(void) {
  memset(kinds, BAD, sizeof kinds);
  for (const char *c = " \t\r\n0123456789+-.eEtrufalsn"; *c; c++) kinds[(unsigned char)*c] = PLAIN;
  kinds['"'] = QUOTE;
  kinds['{'] = kinds['['] = OPENS;
  kinds['}'] = kinds[']'] = CLOSES;
  kinds[':'] = COLON;
  kinds[','] = COMMA;
  for (int c = 0; c < 256; c++) odd[c] = c < 0x20 || c >= 0x80 || c == '\\';
}

/* Whether data[from:to] ends with an odd number of backslashes. */
static int ends_escaping(const unsigned char *data, Py_ssize_t from, Py_ssize_t to) {
  Py_ssize_t at = to;
  while (at > from && data[at - 1] == '\\') at--;
  return (to - at) & 1;
}

/* The quote that ends the string in which pos is, or -1. */
static Py_ssize_t end_of_string(const unsigned char *data, Py_ssize_t pos, Py_ssize_t len) {
  Py_ssize_t at = pos;
  while (at < len) {
    const unsigned char *quote = memchr(data + at, '"', (size_t)(len - at));
    if (quote == NULL) return -1;
    at = quote - data;
    if (!ends_escaping(data, pos, at)) return at;
    at++;
  }
  return -1;
}

static Py_ssize_t skip_white(const unsigned char *data, Py_ssize_t at, Py_ssize_t len) {
  while (at < len && (data[at] == ' ' || data[at] == '\t' || data[at] == '\r' || data[at] == '\n')) at++;
  return at;
}

static int is_told(const unsigned char *data, Py_ssize_t begin, Py_ssize_t stop, const unsigned char *wanted) {
  if (wanted[data[begin + 1]] || stop - begin > LONGEST_KEY) return 1;
  for (Py_ssize_t at = begin; at < stop; at++)
    if (odd[data[at]]) return 1;
  return 0;
}

static int append(PyObject *list, Py_ssize_t number) {
  PyObject *item = PyLong_FromSsize_t(number);
  if (item == NULL) return -1;
  int failed = PyList_Append(list, item);
  Py_DECREF(item);
  return failed;
}

static PyObject *finish(PyObject *keys, const char *open, Py_ssize_t depth, int mode) {
  return Py_BuildValue("Ny#i", keys, open, depth, mode); /* N: takes keys over, also when it fails */
}

/* The byte at a place breaks a rule. */
static PyObject *broken(PyObject *keys, const char *open, Py_ssize_t depth, Py_ssize_t at) {
  if (append(keys, at)) {
    Py_DECREF(keys);
    return NULL;
  }
  return finish(keys, open, depth, BROKEN);
}

static PyObject *outline(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
  (void)self;
  if (nargs != 5 || !PyBytes_Check(args[0]) || !PyBytes_Check(args[2]) || !PyBytes_Check(args[4])) {
    PyErr_SetString(PyExc_TypeError, "outline(data: bytes, pos: int, open: bytes, mode: int, wanted: bytes)");
    return NULL;
  }
  const unsigned char *data = (const unsigned char *)PyBytes_AS_STRING(args[0]);
  const Py_ssize_t len = PyBytes_GET_SIZE(args[0]);
  const unsigned char *wanted = (const unsigned char *)PyBytes_AS_STRING(args[4]);
  Py_ssize_t pos = PyLong_AsSsize_t(args[1]);
  Py_ssize_t depth = PyBytes_GET_SIZE(args[2]);
  long mode = PyLong_AsLong(args[3]);
  if (PyErr_Occurred()) return NULL;
  if (pos < 0 || pos > len || depth > MOST_LEVELS || PyBytes_GET_SIZE(args[4]) != 256 ||
      !((mode >= OUTSIDE && mode <= ESCAPED) || (mode >= IN_VALUE && mode <= IN_VALUE + ESCAPED) || mode == VALUE_NEXT ||
        mode == ENDED)) {
    PyErr_SetString(PyExc_ValueError, "outline: pos, open, mode or wanted out of range");
    return NULL;
  }
  PyObject *keys = PyList_New(0);
  if (keys == NULL) return NULL;
  char open[MOST_LEVELS];
  memcpy(open, PyBytes_AS_STRING(args[2]), (size_t)depth);
  Py_ssize_t begin = -1; /* of the key */
  if (mode == ENDED) {
    pos = skip_white(data, pos, len);
    return pos < len ? broken(keys, open, depth, pos) : finish(keys, open, depth, ENDED);
  }
  int in_value = mode & IN_VALUE;
  Py_ssize_t value_at = mode == VALUE_NEXT ? skip_white(data, pos, len) : -1; /* where a string may be a value */
  mode &= IN_VALUE - 1;
  if (mode == ESCAPED) {
    if (pos >= len) return finish(keys, open, depth, ESCAPED + in_value);
    pos++;
  }
  int inside = mode != OUTSIDE;
  for (;;) {
    if (inside) {
      Py_ssize_t quote = end_of_string(data, pos, len);
      if (quote < 0) {
        if (begin >= 0 && append(keys, begin)) goto failed;
        return finish(keys, open, depth, (ends_escaping(data, pos, len) ? ESCAPED : IN_STRING) + in_value);
      }
      pos = quote + 1;
    }
    if (begin >= 0) {
      const Py_ssize_t at = skip_white(data, pos, len);
      if (at == len || is_told(data, begin, pos, wanted)) {
        if (PyList_GET_SIZE(keys) == 2 * MOST_KEYS) return broken(keys, open, depth, begin);
        if (append(keys, begin) || append(keys, pos)) goto failed;
      }
      if (at == len) return finish(keys, open, depth, COLON_NEXT);
      if (data[at] != ':') return broken(keys, open, depth, at);
      pos = value_at = skip_white(data, at + 1, len);
      in_value = IN_VALUE;
    }
    for (;; pos++) {
      if (pos >= len)
        return finish(keys, open, depth, in_value && depth == 1 && value_at == len ? VALUE_NEXT : OUTSIDE + in_value);
      const unsigned char kind = kinds[data[pos]];
      if (kind == QUOTE) break;
      if (kind == PLAIN) continue;
      if (kind == COMMA) {
        if (depth == 1) in_value = 0;
      } else if (kind == OPENS) {
        if (depth == MOST_LEVELS) return broken(keys, open, depth, pos);
        open[depth++] = (char)data[pos];
      } else if (kind == CLOSES) {
        /* In ASCII a bracket and the one that closes it are two apart. */
        if (depth == 0 || open[depth - 1] != (char)(data[pos] - 2)) return broken(keys, open, depth, pos);
        if (--depth == 0) {
          pos = skip_white(data, pos + 1, len);
          return pos < len ? broken(keys, open, depth, pos) : finish(keys, open, depth, ENDED);
        }
      } else if (kind == BAD || depth == 1) { /* a colon of the outermost object is passed with its key */
        return broken(keys, open, depth, pos);
      }
    }
    begin = -1;
    if (depth == 1) {
      if (!in_value)
        begin = pos;
      else if (pos != value_at)
        return broken(keys, open, depth, pos);
    }
    pos++;
    inside = 1;
  }
failed:
  Py_DECREF(keys);
  return NULL;
}

/* proxy.wire.json_strings.items_slowly */
static PyObject *items(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
  (void)self;
  if (nargs != 2 || !PyBytes_Check(args[0])) {
    PyErr_SetString(PyExc_TypeError, "items(data: bytes, pos: int)");
    return NULL;
  }
  const unsigned char *data = (const unsigned char *)PyBytes_AS_STRING(args[0]);
  const Py_ssize_t len = PyBytes_GET_SIZE(args[0]);
  Py_ssize_t pos = PyLong_AsSsize_t(args[1]), count = 0, depth = 0;
  if (PyErr_Occurred()) return NULL;
  int is_empty = 1;
  for (; pos >= 0 && pos < len; pos++) {
    const unsigned char byte = data[pos];
    if (byte == ' ' || byte == '\t' || byte == '\r' || byte == '\n') continue;
    if (byte == ']' || byte == '}') {
      if (--depth <= 0) break;
      continue;
    }
    if (depth == 1) is_empty = 0;
    if (byte == '[' || byte == '{') {
      depth++;
    } else if (byte == ',') {
      count += depth == 1;
    } else if (byte == '"') {
      pos = end_of_string(data, pos + 1, len);
      if (pos < 0) break;
    }
  }
  return PyLong_FromSsize_t(is_empty ? 0 : count + 1);
}

/* proxy.wire.json_strings.runs_slowly */
static PyObject *runs(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
  (void)self;
  if (nargs != 3 || !PyBytes_Check(args[0])) {
    PyErr_SetString(PyExc_TypeError, "runs(data: bytes, pos: int, least: int)");
    return NULL;
  }
  const unsigned char *data = (const unsigned char *)PyBytes_AS_STRING(args[0]);
  const Py_ssize_t len = PyBytes_GET_SIZE(args[0]);
  Py_ssize_t pos = PyLong_AsSsize_t(args[1]);
  const Py_ssize_t least = PyLong_AsSsize_t(args[2]);
  if (PyErr_Occurred()) return NULL;
  PyObject *found = PyList_New(0);
  if (found == NULL) return NULL;
  while (pos >= 0 && pos < len) {
    const unsigned char *quote = memchr(data + pos, '"', (size_t)(len - pos));
    const Py_ssize_t end = quote == NULL ? len : quote - data;
    if (end - pos >= least && (append(found, pos) || append(found, end))) {
      Py_DECREF(found);
      return NULL;
    }
    pos = end + 1;
  }
  return found;
}

static int same_name(const unsigned char *data, const unsigned char *name, Py_ssize_t size) {
  for (Py_ssize_t at = 0; at < size; at++) {
    const unsigned char byte = data[at];
    if ((byte >= 'A' && byte <= 'Z' ? byte | 0x20 : byte) != name[at]) return 0;
  }
  return 1;
}

static int has_letter_escape(const unsigned char *data, Py_ssize_t size) {
  for (const unsigned char *end = data + size; (data = memchr(data, '\\', (size_t)(end - data))) != NULL; data++) {
    if (end - data >= 6 && memcmp(data, "\\u00", 4) == 0 && data[4] >= '4' && data[4] <= '7') return 1;
  }
  return 0;
}

/* proxy.wire.json_strings.names_slowly */
static PyObject *names(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
  (void)self;
  if (nargs != 4 || !PyBytes_Check(args[0]) || !PyBytes_Check(args[2])) {
    PyErr_SetString(PyExc_TypeError, "names(data: bytes, pos: int, words: bytes, most: int)");
    return NULL;
  }
  const unsigned char *data = (const unsigned char *)PyBytes_AS_STRING(args[0]);
  const Py_ssize_t len = PyBytes_GET_SIZE(args[0]);
  Py_ssize_t pos = PyLong_AsSsize_t(args[1]), left = PyLong_AsSsize_t(args[3]);
  if (PyErr_Occurred()) return NULL;
  /* Words by their sizes, of which there are few: most strings are told from all of them by that. */
  const unsigned char *words = (const unsigned char *)PyBytes_AS_STRING(args[2]);
  const Py_ssize_t words_len = PyBytes_GET_SIZE(args[2]);
  unsigned int sizes = 0;
  Py_ssize_t begins[32], lengths[32];
  int count = 0;
  for (Py_ssize_t at = 0, begin = 0; at <= words_len && count < 32; at++) {
    if (at < words_len && words[at] != '"') continue;
    if (at - begin > 0 && at - begin < 32) {
      sizes |= 1u << (at - begin);
      begins[count] = begin;
      lengths[count++] = at - begin;
    }
    begin = at + 1;
  }
  PyObject *found = PyList_New(0);
  if (found == NULL) return NULL;
  while (left > 0 && pos >= 0 && pos < len) {
    const unsigned char *quote = memchr(data + pos, '"', (size_t)(len - pos));
    if (quote == NULL) break;
    const Py_ssize_t end = quote - data, size = end - pos;
    int is_one = size >= 6 && size <= 160 && has_letter_escape(data + pos, size);
    if (!is_one && size < 32 && (sizes >> size & 1)) {
      for (int at = 0; at < count && !is_one; at++) {
        is_one = lengths[at] == size && same_name(data + pos, words + begins[at], size);
      }
    }
    if (is_one && (append(found, pos) || append(found, end))) {
      Py_DECREF(found);
      return NULL;
    }
    left -= is_one;
    pos = end + 1;
  }
  return found;
}

/* The words of proxy.wire.media_places: what they may be, and the member that is the medium in an object of that name. */
enum { PROMPT = 1, HOLDER = 2, LIST = 4, MEMBER = 8 };
enum { NO_WORD, TYPE, BASE64, DATA, URL, FILE_DATA, IMAGE, SOURCE };
enum { MOST_DEPTH = 64, LONGEST_WORD = 32 };
static const struct {
  const char *word;
  unsigned char size, flags, held;
} placing[] = {
    {"", 0, 0, 0},
    {"type", 4, 0, 0},
    {"base64", 6, 0, 0},
    {"data", 4, 0, 0},
    {"url", 3, 0, 0},
    {"file_data", 9, MEMBER, 0},
    {"image", 5, PROMPT | MEMBER, 0},
    {"source", 6, HOLDER, DATA},
    {"messages", 8, PROMPT, 0},
    {"input", 5, PROMPT, 0},
    {"inputs", 6, PROMPT, 0},
    {"contents", 8, PROMPT, 0},
    {"documents", 9, PROMPT, 0},
    {"query", 5, PROMPT, 0},
    {"images", 6, PROMPT, 0},
    {"inline_data", 11, HOLDER, DATA},
    {"inlineData", 10, HOLDER, DATA},
    {"input_audio", 11, HOLDER, DATA},
    {"audio", 5, HOLDER | MEMBER, DATA},
    {"image_url", 9, HOLDER | MEMBER, URL},
    {"audio_url", 9, HOLDER, URL},
    {"video_url", 9, HOLDER, URL},
    {"file", 4, HOLDER, FILE_DATA},
    {"content", 7, LIST, 0},
    {"parts", 5, LIST, 0},
    {"output", 6, LIST, 0},
    {"result", 6, MEMBER, 0},
    {"b64_json", 8, MEMBER, 0},
};

static int placing_word(const unsigned char *data, Py_ssize_t size) {
  if (size < 3 || size > 11) return NO_WORD;
  for (int at = TYPE; at < (int)(sizeof placing / sizeof placing[0]); at++)
    if (placing[at].size == size && placing[at].word[0] == (char)data[0] && !memcmp(data, placing[at].word, (size_t)size))
      return at;
  return NO_WORD;
}

struct level {
  Py_ssize_t found; /* the last of its media, or -1 */
  Py_ssize_t types;
  unsigned char name, key, type, may, is_list;
};

/* proxy.wire.media_places.walk_slowly */
static PyObject *walk(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
  (void)self;
  if (nargs != 2 || !PyBytes_Check(args[0]) || !PyList_Check(args[1])) {
    PyErr_SetString(PyExc_TypeError, "walk(text: bytes, marks: list[int])");
    return NULL;
  }
  const unsigned char *data = (const unsigned char *)PyBytes_AS_STRING(args[0]);
  const Py_ssize_t len = PyBytes_GET_SIZE(args[0]), count = PyList_GET_SIZE(args[1]);
  Py_ssize_t *marks = PyMem_Malloc((size_t)(2 * count + 1) * sizeof(Py_ssize_t)), *next = marks + count;
  if (marks == NULL) return PyErr_NoMemory();
  for (Py_ssize_t at = 0; at < count; at++) marks[at] = PyLong_AsSsize_t(PyList_GET_ITEM(args[1], at));
  PyObject *good = PyErr_Occurred() ? NULL : PyList_New(0);
  struct level levels[MOST_DEPTH + 1];
  Py_ssize_t depth = 0, mark = 0, at = 0;
  while (good != NULL && at < len && depth <= MOST_DEPTH) {
    const unsigned char byte = data[at];
    if (kinds[byte] != QUOTE && kinds[byte] != OPENS && kinds[byte] != CLOSES) {
      at++;
      continue;
    }
    struct level *level = depth ? &levels[depth - 1] : NULL;
    if (byte == '"') {
      Py_ssize_t end = at + 1; /* byte by byte, as long strings are taken out, and quotes in one may be escaped */
      while (end < len && data[end] != '"') end += data[end] == '\\' ? 2 : 1;
      if (end >= len) break;
      while (mark < count && marks[mark] < at) mark++;
      while (mark + 1 < count && marks[mark] == at && marks[mark + 1] == at) mark++;
      if (level != NULL) {
        const int word = end - at <= LONGEST_WORD ? placing_word(data + at + 1, end - at - 1) : NO_WORD;
        const Py_ssize_t behind = skip_white(data, end + 1, len);
        if (behind < len && data[behind] == ':') {
          level->key = (unsigned char)word;
        } else if (level->is_list) {
        } else if (mark < count && marks[mark] == at) {
          const int held = placing[level->name].held;
          const int fits = depth == 1 ? level->key == IMAGE
                           : held     ? level->key == held
                                      : placing[level->key].flags & MEMBER;
          if (level->may && fits) {
            next[mark] = level->found;
            level->found = mark;
          }
        } else if (level->key == TYPE) {
          level->type = (unsigned char)word;
          level->types++;
        }
      }
      at = end;
    } else if (byte == '{' || byte == '[') {
      if (depth < MOST_DEPTH) {
        struct level *opened = &levels[depth];
        const int is_list = byte == '[';
        if (level == NULL) {
          *opened = (struct level){-1, 0, 0, 0, 0, 1, (unsigned char)is_list};
        } else if (level->is_list) {
          *opened = (struct level){-1, 0, level->name, 0, 0, level->may && depth > 1, (unsigned char)is_list};
        } else {
          const int flags = placing[level->key].flags;
          const int known = depth == 1 ? flags & PROMPT : flags & (LIST | HOLDER);
          *opened = (struct level){-1, 0, level->key, 0, 0, level->may && known, (unsigned char)is_list};
        }
      }
      depth++;
    } else if ((byte == '}' || byte == ']') && level != NULL) {
      depth--;
      if (level->name != SOURCE || (level->types == 1 && level->type == BASE64)) {
        for (Py_ssize_t found = level->found; found >= 0; found = next[found]) {
          if (append(good, found)) {
            Py_CLEAR(good);
            break;
          }
        }
      }
    }
    at++;
  }
  PyMem_Free(marks);
  return good == NULL ? NULL : Py_BuildValue("NN", good, PyBool_FromLong(depth <= MOST_DEPTH));
}

static PyMethodDef methods[] = {
    {"names", (PyCFunction)(void (*)(void))names, METH_FASTCALL, "See proxy.wire.json_strings.names_slowly."},
    {"walk", (PyCFunction)(void (*)(void))walk, METH_FASTCALL, "See proxy.wire.media_places.walk_slowly."},
    {"items", (PyCFunction)(void (*)(void))items, METH_FASTCALL, "See proxy.wire.json_strings.items_slowly."},
    {"runs", (PyCFunction)(void (*)(void))runs, METH_FASTCALL, "See proxy.wire.json_strings.runs_slowly."},
    {"outline", (PyCFunction)(void (*)(void))outline, METH_FASTCALL, "See proxy.wire.outline.outline_slowly."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "proxy.wire._outline", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__outline(void) {
  make_tables();
  return PyModule_Create(&module);
}
