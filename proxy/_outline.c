/* proxy.outline.outline_slowly in C: same arguments, same results, whatever the bytes.
 *
 * Strings are crossed with memchr from quote to quote, so that an image costs what reading its memory does.
 * Nothing is read outside of data[pos:len], and nothing is kept.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <string.h>

enum { OUTSIDE, IN_STRING, ESCAPED, COLON_NEXT };

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

static int append(PyObject *list, Py_ssize_t number) {
  PyObject *item = PyLong_FromSsize_t(number);
  if (item == NULL) return -1;
  int failed = PyList_Append(list, item);
  Py_DECREF(item);
  return failed;
}

static PyObject *finish(PyObject *keys, Py_ssize_t depth, int mode) {
  PyObject *result = Py_BuildValue("Nni", keys, depth, mode); /* N: takes keys over, also when it fails */
  return result;
}

static PyObject *outline(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
  (void)self;
  if (nargs != 4 || !PyBytes_Check(args[0])) {
    PyErr_SetString(PyExc_TypeError, "outline(data: bytes, pos: int, depth: int, mode: int)");
    return NULL;
  }
  const unsigned char *data = (const unsigned char *)PyBytes_AS_STRING(args[0]);
  const Py_ssize_t len = PyBytes_GET_SIZE(args[0]);
  Py_ssize_t pos = PyLong_AsSsize_t(args[1]);
  Py_ssize_t depth = PyLong_AsSsize_t(args[2]);
  long mode = PyLong_AsLong(args[3]);
  if (PyErr_Occurred()) return NULL;
  if (pos < 0 || pos > len || mode < OUTSIDE || mode > ESCAPED) {
    PyErr_SetString(PyExc_ValueError, "outline: pos or mode out of range");
    return NULL;
  }
  PyObject *keys = PyList_New(0);
  if (keys == NULL) return NULL;
  Py_ssize_t begin = -1; /* of the string, where it matters */
  if (mode == ESCAPED) {
    if (pos >= len) return finish(keys, depth, ESCAPED);
    pos++;
  }
  int inside = mode != OUTSIDE;
  for (;;) {
    if (inside) {
      Py_ssize_t quote = end_of_string(data, pos, len);
      if (quote < 0) {
        if (begin >= 0 && append(keys, begin)) goto failed;
        return finish(keys, depth, ends_escaping(data, pos, len) ? ESCAPED : IN_STRING);
      }
      pos = quote + 1;
    }
    if (begin >= 0) {
      Py_ssize_t at = pos;
      while (at < len && (data[at] == ' ' || data[at] == '\t' || data[at] == '\r' || data[at] == '\n')) at++;
      if (at == len || data[at] == ':') {
        if (append(keys, begin) || append(keys, pos)) goto failed;
        if (at == len) return finish(keys, depth, COLON_NEXT);
      }
      pos = at;
    }
    for (;; pos++) {
      if (pos >= len) return finish(keys, depth, OUTSIDE);
      unsigned char byte = data[pos];
      if (byte == '"') break;
      if (byte == '{' || byte == '[')
        depth++;
      else if (byte == '}' || byte == ']')
        depth--;
    }
    begin = depth == 1 ? pos : -1;
    pos++;
    inside = 1;
  }
failed:
  Py_DECREF(keys);
  return NULL;
}

static PyMethodDef methods[] = {
    {"outline", (PyCFunction)(void (*)(void))outline, METH_FASTCALL, "See proxy.outline.outline_slowly."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "proxy._outline", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__outline(void) { return PyModule_Create(&module); }
