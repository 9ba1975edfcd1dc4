/*
 * Socket.IO's events and acks, a part of _speedups.c: both directions, with the JSON by a function that is given.
 */

#include <stdio.h>

/* JavaScript has exact integers up to 2**53, which has 16 digits. */
#define MOST_ID_DIGITS 16

/* The head of an event or ack. */
typedef struct {
    Py_UCS4 type; /* '2' or '3' */
    Py_ssize_t pathEnd; /* 0 without a namespace, whose path begins at 1 */
    long long id; /* -1 without one */
    Py_ssize_t length;
} PacketHead;

/* Split the head of an event or ack from its arguments. Return 0 for any other packet, -1 with an exception. */
static int
splitHead(PyObject *message, PacketHead *head)
{
    Py_ssize_t at = 1, end;
    Py_UCS4 letter = 0;
    int digits = 0;

    if ((end = PyUnicode_GetLength(message)) < 0)
        return -1;
    if (end < 2 || ((head->type = PyUnicode_ReadChar(message, 0)) != '2' && head->type != '3'))
        return 0;
    head->pathEnd = 0;
    if (PyUnicode_ReadChar(message, 1) == '/') {
        while (at < end && (letter = PyUnicode_ReadChar(message, at)) != ',' && letter != '[')
            at++;
        if (letter != ',')
            return 0;
        head->pathEnd = at++;
    }
    head->id = 0;
    for (; at < end && (letter = PyUnicode_ReadChar(message, at)) >= '0' && letter <= '9'; at++) {
        if (++digits > MOST_ID_DIGITS)
            return 0;
        head->id = head->id * 10 + (letter - '0');
    }
    if (!digits)
        head->id = -1;
    head->length = at;
    return at < end && letter == '[' && (head->type == '2' || digits);
}

/* Read the arguments behind a head. Return NULL without an exception if they are not JSON, or begin with no name. */
static PyObject *
readArguments(PyObject *message, const PacketHead *head, PyObject *loads, PyObject *reserved)
{
    PyObject *text = PyUnicode_Substring(message, head->length, PyUnicode_GetLength(message)), *data, *name;
    int isGood = 1;

    if (text == NULL)
        return NULL;
    data = PyObject_CallFunctionObjArgs(loads, text, NULL);
    Py_DECREF(text);
    if (data == NULL) {
        if (PyErr_ExceptionMatches(PyExc_ValueError))
            PyErr_Clear();
        return NULL;
    }
    if (head->type == '2') {
        isGood = PyList_Check(data) && PyList_Size(data) > 0 && (name = PyList_GetItem(data, 0)) != NULL &&
                 PyUnicode_CheckExact(name) && PySet_Contains(reserved, name) == 0;
    }
    if (!isGood)
        Py_CLEAR(data);
    return data;
}

PyDoc_STRVAR(readPlain_doc, "readPlain(message, loads, packetType, types, reserved, /)\n--\n\n"
                            "Read an event or ack without attachments: see socketio/packet.py.");

static PyObject *
readPlain(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    PyObject *message, *data;
    PacketHead head;

    if (count != 5 || !PyType_Check(arguments[2]) || !PyTuple_Check(arguments[3]) || !PyAnySet_Check(arguments[4]) ||
        PyTuple_Size(arguments[3]) != 2 || !PyType_IsSubtype((PyTypeObject *)arguments[2], &PyTuple_Type)) {
        PyErr_SetString(PyExc_TypeError, "readPlain() takes a str, a function, a type of tuples, two values and a set");
        return NULL;
    }
    message = arguments[0];
    if (splitHead(message, &head) <= 0 ||
        (data = readArguments(message, &head, arguments[1], arguments[4])) == NULL)
        return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
    /* As tuple.__new__() makes an instance of a subclass. */
    return filled(
        PyType_GenericAlloc((PyTypeObject *)arguments[2], 4), 4,
        (PyObject *[]){
            Py_NewRef(PyTuple_GetItem(arguments[3], head.type == '3')),
            head.pathEnd ? PyUnicode_Substring(message, 1, head.pathEnd) : PyUnicode_FromStringAndSize("/", 1),
            data,
            head.id < 0 ? Py_NewRef(Py_None) : PyLong_FromLongLong(head.id),
        });
}

/* Write a head, a number and some bytes as one text. */
static PyObject *
joined(const char *head, Py_ssize_t headSize, const char *number, const char *json, Py_ssize_t size)
{
    char onStack[ON_STACK], *all = onStack;
    Py_ssize_t digits = (Py_ssize_t)strlen(number), total = headSize + digits + size;
    PyObject *text;

    if (total > ON_STACK && (all = PyMem_Malloc(total)) == NULL)
        return PyErr_NoMemory();
    memcpy(all, head, headSize);
    memcpy(all + headSize, number, digits);
    memcpy(all + headSize + digits, json, size);
    text = PyUnicode_DecodeUTF8(all, total, NULL);
    if (all != onStack)
        PyMem_Free(all);
    return text;
}

PyDoc_STRVAR(encodeBehind_doc, "encodeBehind(head, id, data, dumps, default, options, /)\n--\n\n"
                               "Encode data behind the head of a packet: see socketio/jsontext.py.");

static PyObject *
encodeBehind(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    PyObject *json, *text = NULL;
    const char *head;
    char number[24], *start;
    Py_ssize_t headSize, size;
    long long id;

    if (count != 6) {
        PyErr_SetString(PyExc_TypeError, "encodeBehind() takes 6 arguments");
        return NULL;
    }
    if ((head = PyUnicode_AsUTF8AndSize(arguments[0], &headSize)) == NULL)
        return NULL;
    if ((id = PyLong_AsLongLong(arguments[1])) == -1 && PyErr_Occurred())
        return NULL;
    snprintf(number, sizeof number, "%lld", id);
    json = PyObject_CallFunctionObjArgs(arguments[3], arguments[2], arguments[4], arguments[5], NULL);
    if (json == NULL && PyErr_ExceptionMatches(PyExc_TypeError)) {
        PyErr_Clear();
        return Py_NewRef(Py_None);
    }
    if (json != NULL && PyBytes_AsStringAndSize(json, &start, &size) == 0)
        text = joined(head, headSize, number, start, size);
    Py_XDECREF(json);
    return text;
}
