/* Reads Avro bodies straight into events. What it cannot read it leaves to the reader compiled in Python, which names
 * what is wrong: so every refusal has one source, and here nothing needs words. */
#include "values.h"
#include <stddef.h>

enum { MAX_FIELDS = 64, HEAD = 10 };

/* Those of words come first: PRINTABLE to JSON have limits. */
typedef enum {
    PRINTABLE, PLAIN, TEXT, JSON, DOCUMENT, COMPANY, LONG, TIME, BYTES, DOUBLE, BOOLEAN, KIND, OPTIONAL, ARRAY, RECORD
} Place;
static const char *const KINDS[] = {"printable", "plain", "text",   "json",    "document", "company",  "long",  "time",
                                    "bytes",     "double", "boolean", "kind", "optional", "array", "record"};

/* One place of a schema. */
typedef struct Node {
    Place kind;
    Py_ssize_t count; /* of parts: the fields of a record, or what stands in an optional or an array */
    struct Node *parts;
    PyObject *what;  /* a record's class, or None for a dict; the bytes that a KIND must find */
    PyObject *names; /* of those fields of a record that have a value */
    Py_ssize_t least, most; /* of a word: characters, or bytes of a text and of JSON */
} Node;

typedef struct {
    PyObject_HEAD
    vectorcallfunc call;
    Node root;
    PyObject *thorough;
} Reader;

static PyObject *read_value(const Node *node, Cursor *cursor);

/* ---- what is made of them ---- */

static PyObject *read_optional(const Node *node, Cursor *cursor) {
    if (cursor->at == cursor->end || (*cursor->at & ~2))
        return NULL;
    if (*cursor->at++ == 0)
        Py_RETURN_NONE;
    return read_value(node->parts, cursor);
}

/* An item takes at least a byte: a count alone fills no memory. */
static int read_items(const Node *node, Cursor *cursor, int64_t count, PyObject *items) {
    while (count--) {
        const unsigned char *before = cursor->at;
        PyObject *item = read_value(node->parts, cursor);
        int kept = item && cursor->at > before && PyList_Append(items, item) == 0;
        Py_XDECREF(item);
        if (!kept)
            return 0;
    }
    return 1;
}

static PyObject *read_array(const Node *node, Cursor *cursor) {
    int64_t count, size;
    PyObject *items = PyList_New(0), *array = NULL;
    while (items && varint(cursor, &count)) {
        if (count == 0) {
            array = PyList_AsTuple(items);
            break;
        }
        /* A negative count has the size of its items behind it, for those that skip them. */
        if (count < 0 && (count == INT64_MIN || !varint(cursor, &size)))
            break;
        if (!read_items(node, cursor, count < 0 ? -count : count, items))
            break;
    }
    Py_XDECREF(items);
    return array;
}

static int stands_here(const Node *node, Cursor *cursor) {
    Py_ssize_t size = PyBytes_GET_SIZE(node->what);
    if (size > cursor->end - cursor->at || memcmp(cursor->at, PyBytes_AS_STRING(node->what), (size_t)size))
        return 0;
    cursor->at += size;
    return 1;
}

static PyObject *made(const Node *node, PyObject *const *values) {
    if (node->what != Py_None)
        return PyObject_Vectorcall(node->what, values, 0, node->names);
    PyObject *dict = PyDict_New();
    for (Py_ssize_t n = 0; dict && n < PyTuple_GET_SIZE(node->names); n++)
        if (PyDict_SetItem(dict, PyTuple_GET_ITEM(node->names, n), values[n]))
            Py_CLEAR(dict);
    return dict;
}

static PyObject *read_record(const Node *node, Cursor *cursor) {
    PyObject *values[MAX_FIELDS], *record = NULL;
    Py_ssize_t have = 0, n = 0;
    for (; n < node->count; n++) {
        const Node *part = &node->parts[n];
        if (part->kind == KIND) {
            if (!stands_here(part, cursor))
                break;
        } else if (!(values[have] = read_value(part, cursor))) {
            break;
        } else {
            have++;
        }
    }
    if (n == node->count)
        record = made(node, values);
    while (have)
        Py_DECREF(values[--have]);
    return record;
}

static PyObject *read_value(const Node *node, Cursor *cursor) {
    switch (node->kind) {
    case PRINTABLE: return read_printable(cursor, node->least, node->most);
    case PLAIN: return read_plain(cursor, node->least, node->most);
    case TEXT: return read_text(cursor, node->most);
    case JSON: return read_json(cursor, node->most);
    case DOCUMENT: return read_text(cursor, PY_SSIZE_T_MAX);
    case COMPANY: return read_company(cursor);
    case LONG: return read_long(cursor);
    case TIME: return read_time(cursor);
    case BYTES: return read_bytes(cursor);
    case DOUBLE: return read_double(cursor);
    case BOOLEAN: return read_boolean(cursor);
    case OPTIONAL: return read_optional(node, cursor);
    case ARRAY: return read_array(node, cursor);
    case RECORD: return read_record(node, cursor);
    case KIND: break; /* stands only between the fields of a record */
    }
    return NULL;
}

/* All bytes from `start` on, or NULL without an exception. */
static PyObject *read_whole(const Reader *self, PyObject *bytes, Py_ssize_t start) {
    if (!PyBytes_CheckExact(bytes) || start < 0 || start > PyBytes_GET_SIZE(bytes))
        return NULL;
    const unsigned char *first = (const unsigned char *)PyBytes_AS_STRING(bytes);
    Cursor cursor = {first + start, first + PyBytes_GET_SIZE(bytes)};
    PyObject *value = read_value(&self->root, &cursor);
    if (value && cursor.at != cursor.end)
        Py_CLEAR(value);
    if (!value)
        PyErr_Clear();
    return value;
}

/* ---- from a plan, which is nested tuples: (kind, ...) ---- */

static void forget(Node *node) {
    for (Py_ssize_t n = 0; n < node->count; n++)
        forget(&node->parts[n]);
    PyMem_Free(node->parts);
    Py_CLEAR(node->what);
    Py_CLEAR(node->names);
}

static int plan(Node *node, PyObject *from);

static int plan_parts(Node *node, PyObject *const *from, Py_ssize_t count) {
    node->parts = PyMem_Calloc((size_t)count, sizeof(Node));
    if (!node->parts) {
        PyErr_NoMemory();
        return 0;
    }
    for (; node->count < count; node->count++)
        if (!plan(&node->parts[node->count], from[node->count])) {
            node->count++; /* the part that failed may hold something */
            return 0;
        }
    return 1;
}

static int plan_record(Node *node, PyObject *from) {
    PyObject *parts;
    if (!PyArg_ParseTuple(from, "OOO!O!", &parts, &node->what, &PyTuple_Type, &node->names, &PyTuple_Type, &parts)) {
        node->what = node->names = NULL;
        return 0;
    }
    Py_INCREF(node->what);
    Py_INCREF(node->names);
    if (PyTuple_GET_SIZE(parts) > MAX_FIELDS) {
        PyErr_SetString(PyExc_ValueError, "a record has too many fields");
        return 0;
    }
    return plan_parts(node, &PyTuple_GET_ITEM(parts, 0), PyTuple_GET_SIZE(parts));
}

static int plan(Node *node, PyObject *from) {
    const char *kind = PyTuple_Check(from) && PyTuple_GET_SIZE(from) ? PyUnicode_AsUTF8(PyTuple_GET_ITEM(from, 0)) : "";
    Py_ssize_t size = PyTuple_Check(from) ? PyTuple_GET_SIZE(from) : 0;
    PyObject *word; /* of it, Python makes words */
    for (node->kind = PRINTABLE; kind && strcmp(kind, KINDS[node->kind]); node->kind++)
        if (node->kind == RECORD)
            return PyErr_Format(PyExc_ValueError, "no plan: %R", from) != NULL;
    if (!kind)
        return 0;
    if (node->kind == RECORD)
        return plan_record(node, from);
    if (node->kind <= JSON)
        return PyArg_ParseTuple(from, "OnnOO", &word, &node->least, &node->most, &word, &word);
    if (node->kind < KIND)
        return 1;
    if (size != (node->kind == KIND ? 3 : 2) || (node->kind == KIND && !PyBytes_CheckExact(PyTuple_GET_ITEM(from, 1))))
        return PyErr_Format(PyExc_ValueError, "no plan: %R", from) != NULL;
    if (node->kind == KIND) {
        node->what = Py_NewRef(PyTuple_GET_ITEM(from, 1));
        return 1;
    }
    return plan_parts(node, &PyTuple_GET_ITEM(from, 1), 1);
}

/* ---- the type and the module ---- */

static PyObject *reader_call(PyObject *object, PyObject *const *args, size_t nargsf, PyObject *names) {
    Reader *self = (Reader *)object;
    if (PyVectorcall_NARGS(nargsf) == 2 && !names && PyLong_CheckExact(args[1])) {
        PyObject *value = read_whole(self, args[0], PyLong_AsSsize_t(args[1]));
        if (value)
            return value;
        PyErr_Clear();
    }
    return PyObject_Vectorcall(self->thorough, args, nargsf, names);
}

static PyObject *reader_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(names)) {
    PyObject *from, *thorough;
    if (!PyArg_ParseTuple(args, "O!O", &PyTuple_Type, &from, &thorough))
        return NULL;
    Reader *self = (Reader *)type->tp_alloc(type, 0);
    if (!self)
        return NULL;
    self->call = reader_call;
    self->thorough = Py_NewRef(thorough);
    if (!plan(&self->root, from))
        Py_CLEAR(self);
    return (PyObject *)self;
}

static void reader_free(PyObject *object) {
    Reader *self = (Reader *)object;
    forget(&self->root);
    Py_XDECREF(self->thorough);
    Py_TYPE(object)->tp_free(object);
}

static PyTypeObject ReaderType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "schemas.codec.native.Reader",
    .tp_doc = "Reader(plan, thorough): what reads one schema, and what is called with the same on bytes that do not fit.",
    .tp_basicsize = sizeof(Reader),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_VECTORCALL,
    .tp_vectorcall_offset = offsetof(Reader, call),
    .tp_call = PyVectorcall_Call,
    .tp_new = reader_new,
    .tp_dealloc = reader_free,
};

/* What a value's reader makes of it; NULL where it has none, or fails. */
static PyObject *read_one(PyObject *readers, PyObject *value) {
    if (!PyBytes_CheckExact(value) || PyBytes_GET_SIZE(value) < HEAD)
        return NULL;
    PyObject *head = PyBytes_FromStringAndSize(PyBytes_AS_STRING(value), HEAD), *event = NULL;
    PyObject *reader = head ? Py_XNewRef(PyDict_GetItemWithError(readers, head)) : NULL;
    if (reader && Py_IS_TYPE(reader, &ReaderType))
        event = read_whole((Reader *)reader, value, HEAD);
    else if (reader)
        event = PyObject_CallFunction(reader, "Oi", value, HEAD);
    Py_XDECREF(reader);
    Py_XDECREF(head);
    return event;
}

static PyObject *read_all(PyObject *Py_UNUSED(module), PyObject *args) {
    PyObject *given, *readers, *otherwise;
    if (!PyArg_ParseTuple(args, "OO!O", &given, &PyDict_Type, &readers, &otherwise))
        return NULL;
    /* A tuple: whatever is called on the way, it stays as it is. */
    PyObject *values = PySequence_Tuple(given), *events = values ? PyList_New(PyTuple_GET_SIZE(values)) : NULL;
    for (Py_ssize_t n = 0; events && n < PyTuple_GET_SIZE(values); n++) {
        PyObject *event = read_one(readers, PyTuple_GET_ITEM(values, n));
        if (!event && (!PyErr_Occurred() || PyErr_ExceptionMatches(PyExc_Exception))) {
            PyErr_Clear();
            event = PyObject_CallFunction(otherwise, "n", n);
        }
        if (event)
            PyList_SET_ITEM(events, n, event);
        else
            Py_CLEAR(events);
    }
    Py_XDECREF(values);
    return events;
}

/* Whether each is None or a text of 1 to `most` visible ASCII characters. If not, it may fit all the same. */
static PyObject *visible(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count) {
    Py_ssize_t most = count ? PyLong_AsSsize_t(args[0]) : 0;
    if (most == -1 && PyErr_Occurred())
        return NULL;
    for (Py_ssize_t n = 1; n < count; n++) {
        if (args[n] == Py_None)
            continue;
        if (!PyUnicode_Check(args[n]) || !PyUnicode_IS_COMPACT_ASCII(args[n]))
            Py_RETURN_FALSE;
        Py_ssize_t size = PyUnicode_GET_LENGTH(args[n]);
        if (size < 1 || size > most || !visible_ascii(PyUnicode_DATA(args[n]), size))
            Py_RETURN_FALSE;
    }
    Py_RETURN_TRUE;
}

static PyMethodDef METHODS[] = {
    {"visible", (PyCFunction)(void (*)(void))visible, METH_FASTCALL, "visible(most, *texts): None, or 1 to `most` visible ASCII characters each."},
    {"read_all", read_all, METH_VARARGS, "read_all(values, readers, otherwise): what each is read as. `otherwise` says it by position, where no reader can."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef MODULE = {PyModuleDef_HEAD_INIT, .m_name = "native", .m_size = -1, .m_methods = METHODS};

PyMODINIT_FUNC PyInit_native(void) {
    PyObject *module = PyModule_Create(&MODULE);
    if (module && PyModule_AddType(module, &ReaderType))
        Py_CLEAR(module);
    return module;
}
