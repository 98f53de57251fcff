/* Single values out of Avro's bytes, for native.c: 0 or NULL where the bytes do not fit, with or without an exception. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

enum { MAX_COMPANY = 128 };
enum { DEEPEST = 64 };                                  /* as in schemas.words */
static const int64_t MAX_TIME = 253402300799999999;     /* the year 9999, as in schemas.codec.primitives */
static const uint64_t EACH = 0x0101010101010101u, HIGH = 0x8080808080808080u;

typedef struct {
    const unsigned char *at, *end;
} Cursor;

static int varint(Cursor *cursor, int64_t *value) {
    uint64_t bits = 0;
    for (int shift = 0; shift < 64 && cursor->at < cursor->end; shift += 7) {
        uint64_t byte = *cursor->at++;
        if (shift == 63 && byte > 1)
            return 0;
        bits |= (byte & 127) << shift;
        if (byte < 128) {
            *value = (int64_t)(bits >> 1) ^ -(int64_t)(bits & 1);
            return 1;
        }
    }
    return 0;
}

/* The bytes after their length. Never more than there are. */
static const char *counted(Cursor *cursor, Py_ssize_t *size) {
    int64_t length;
    if (!varint(cursor, &length) || length < 0 || length > cursor->end - cursor->at)
        return NULL;
    const char *start = (const char *)cursor->at;
    cursor->at += length;
    *size = (Py_ssize_t)length;
    return start;
}

static uint64_t eight(const unsigned char *at) {
    uint64_t bytes;
    memcpy(&bytes, at, 8);
    return bytes;
}

/* In a byte's highest bit where it is no visible ASCII and no blank; a borrow only spreads from such a byte. */
static uint64_t hidden(uint64_t bytes) { return (bytes | (bytes - 32 * EACH) | (bytes + EACH)) & HIGH; }

static int visible_ascii(const unsigned char *at, Py_ssize_t size) {
    uint64_t wrong = 0;
    Py_ssize_t n = 0;
    for (; n + 8 <= size; n += 8)
        wrong |= hidden(eight(at + n));
    if (n < size && size >= 8)
        wrong |= hidden(eight(at + size - 8));
    else
        for (; n < size; n++)
            wrong |= at[n] < 32 || at[n] > 126;
    return !wrong;
}

static PyObject *of_ascii(const char *start, Py_ssize_t size) {
    PyObject *text = PyUnicode_New(size, 127);
    if (text)
        memcpy(PyUnicode_DATA(text), start, (size_t)size);
    return text;
}

/* What Python's own table calls printable; what it does not, schemas.words judges. */
static PyObject *read_printable(Cursor *cursor, Py_ssize_t least, Py_ssize_t most) {
    Py_ssize_t size;
    const char *start = counted(cursor, &size);
    if (!start || size < least || size > 4 * most)
        return NULL;
    if (visible_ascii((const unsigned char *)start, size))
        return size <= most ? of_ascii(start, size) : NULL;
    PyObject *text = PyUnicode_DecodeUTF8(start, size, NULL);
    Py_ssize_t length = text ? PyUnicode_GET_LENGTH(text) : 0, n = 0;
    while (n < length && Py_UNICODE_ISPRINTABLE(PyUnicode_READ_CHAR(text, n)))
        n++;
    if (text && (n < length || length < least || length > most))
        Py_CLEAR(text);
    return text;
}

static PyObject *read_plain(Cursor *cursor, Py_ssize_t least, Py_ssize_t most) {
    PyObject *text = read_printable(cursor, least, most);
    for (Py_ssize_t n = 0; text && n < PyUnicode_GET_LENGTH(text); n++) {
        Py_UCS4 c = PyUnicode_READ_CHAR(text, n);
        if (c < 128 && !Py_ISALNUM(c) && c != '_' && (n == 0 || !strchr(".- ", (int)c)))
            Py_CLEAR(text);
    }
    return text;
}

static PyObject *read_text(Cursor *cursor, Py_ssize_t most) {
    Py_ssize_t size;
    const char *start = counted(cursor, &size);
    return start && size <= most ? PyUnicode_DecodeUTF8(start, size, NULL) : NULL;
}

/* [ and { differ in one bit, and so do ] and }. */
static Py_ssize_t opening(const unsigned char *at, Py_ssize_t size) {
    Py_ssize_t found = 0, n = 0;
    for (; n + 8 <= size; n += 8) {
        uint64_t other = (eight(at + n) | 32 * EACH) ^ '{' * EACH; /* 0 in a byte that opens */
        uint64_t same = ~((((other & ~HIGH) + ~HIGH) | other | ~HIGH));
        found += (Py_ssize_t)((same >> 7) * EACH >> 56);
    }
    for (; n < size; n++)
        found += (at[n] | 32) == '{';
    return found;
}

static int shallow(const unsigned char *at, Py_ssize_t size) {
    int deep = 0, quoted = 0;
    if (size <= DEEPEST || opening(at, size) <= DEEPEST)
        return 1;
    for (Py_ssize_t n = 0; n < size; n++) {
        if (quoted && at[n] == '\\')
            n++;
        else if (at[n] == '"')
            quoted = !quoted;
        else if (!quoted && (at[n] | 32) == '{' && ++deep > DEEPEST)
            return 0;
        else if (!quoted && (at[n] | 32) == '}' && deep)
            deep--;
    }
    return 1;
}

static PyObject *read_json(Cursor *cursor, Py_ssize_t most) {
    Py_ssize_t size;
    const char *start = counted(cursor, &size);
    if (!start || size > most || !shallow((const unsigned char *)start, size))
        return NULL;
    return PyUnicode_DecodeUTF8(start, size, NULL);
}

static PyObject *read_company(Cursor *cursor) {
    Py_ssize_t size;
    const char *start = counted(cursor, &size);
    if (!start || size < 1 || size > MAX_COMPANY)
        return NULL;
    for (Py_ssize_t n = 0; n < size; n++)
        if (!Py_ISALNUM(start[n]) && (n == 0 || !start[n] || !strchr("._-", start[n])))
            return NULL;
    return PyUnicode_DecodeASCII(start, size, NULL);
}

static PyObject *read_long(Cursor *cursor) {
    int64_t value;
    return varint(cursor, &value) ? PyLong_FromLongLong(value) : NULL;
}

static PyObject *read_time(Cursor *cursor) {
    int64_t value;
    return varint(cursor, &value) && value >= 0 && value <= MAX_TIME ? PyLong_FromLongLong(value) : NULL;
}

static PyObject *read_bytes(Cursor *cursor) {
    Py_ssize_t size;
    const char *start = counted(cursor, &size);
    return start ? PyBytes_FromStringAndSize(start, size) : NULL;
}

static PyObject *read_double(Cursor *cursor) {
    if (cursor->end - cursor->at < 8)
        return NULL;
    uint64_t bits = 0;
    double value;
    for (int n = 7; n >= 0; n--)
        bits = bits << 8 | cursor->at[n];
    memcpy(&value, &bits, 8);
    cursor->at += 8;
    return isfinite(value) ? PyFloat_FromDouble(value) : NULL;
}

static PyObject *read_boolean(Cursor *cursor) {
    if (cursor->at == cursor->end || *cursor->at > 1)
        return NULL;
    return PyBool_FromLong(*cursor->at++);
}
