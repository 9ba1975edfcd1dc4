/*
 * The innermost loops of the server in C.
 *
 * Each function here has a reference in Python of the same name, marked by @accelerated of txrealtime/speedups.py, and
 * has the same results on the same arguments: tests/test_speedups.py compares the two. Without a compiler, or with
 * TXREALTIME_PURE=1, the references run. A function belongs here only if it takes 3 % off a workload at least.
 *
 * Only the limited API of Python 3.11 is used, so one build serves all later releases.
 */

#define PY_SSIZE_T_CLEAN
#ifndef Py_GIL_DISABLED
#define Py_LIMITED_API 0x030b0000
#endif
#include <Python.h>

#include <stdint.h>
#include <string.h>

#ifndef _WIN32
#include <sys/socket.h>
#include <time.h>
#endif

/* Check the number of arguments. */
static int
takes(const char *function, Py_ssize_t expected, Py_ssize_t given)
{
    if (given != expected)
        PyErr_Format(PyExc_TypeError, "%s() takes %zd arguments, and %zd were given", function, expected, given);
    return given == expected;
}

/* Fill a new tuple with new references. If one of them or the tuple is NULL, its exception is set already. */
static PyObject *
filled(PyObject *tuple, int count, PyObject *const *items)
{
    int at, failed = tuple == NULL;

    for (at = 0; at < count; at++) {
        if (items[at] == NULL)
            failed = 1;
        else if (tuple == NULL)
            Py_DECREF(items[at]);
        else
            PyTuple_SetItem(tuple, at, items[at]);
    }
    if (failed)
        Py_CLEAR(tuple);
    return tuple;
}

/* Count messages and their bytes in a Meter, a bytearray with the two sums, unless it is None. */
static int
addTo(PyObject *meter, Py_ssize_t messages, Py_ssize_t bytes)
{
    int64_t sums[2];

    if (meter == Py_None)
        return 0;
    if (!PyByteArray_Check(meter) || PyByteArray_Size(meter) != sizeof sums) {
        PyErr_SetString(PyExc_TypeError, "a meter is a bytearray of two integers");
        return -1;
    }
    memcpy(sums, PyByteArray_AsString(meter), sizeof sums);
    sums[0] += messages;
    sums[1] += bytes;
    memcpy(PyByteArray_AsString(meter), sums, sizeof sums);
    return 0;
}

/* -- frames (RFC 6455, 5.2) ------------------------------------------------------------------------------------- */

/* Copy bytes under a mask (RFC 6455, 5.3), 8 at a time. The source and the target may be the same. */
static void
copyMasked(unsigned char *target, const unsigned char *source, Py_ssize_t size, const unsigned char *mask)
{
    unsigned char twice[8];
    uint64_t wide, word;
    Py_ssize_t at = 0;

    memcpy(twice, mask, 4);
    memcpy(twice + 4, mask, 4);
    memcpy(&wide, twice, 8);
    for (; size - at >= 8; at += 8) {
        memcpy(&word, source + at, 8);
        word ^= wide;
        memcpy(target + at, &word, 8);
    }
    for (; at < size; at++)
        target[at] = source[at] ^ mask[at & 3];
}

/* A plain data frame. */
typedef struct {
    int isText;
    const unsigned char *payload;
    Py_ssize_t size;
} Frame;

/*
 * Find the plain data frame at the beginning of some data: whole, final, of type text or binary, its length in the
 * shortest form, with a mask or without one as is demanded, and with a payload of the largest size at most.
 */
static int
findFrame(const unsigned char *data, Py_ssize_t available, int isMasked, Py_ssize_t maxPayload, Frame *frame)
{
    int at, length = 2; /* of the head, up to the mask */
    uint64_t size;

    if (available < 2 || (data[0] != 0x81 && data[0] != 0x82) || data[1] >> 7 != isMasked)
        return 0;
    size = data[1] & 0x7f;
    if (size > 125) {
        length = size == 126 ? 4 : 10;
        if (available < length)
            return 0;
        for (size = 0, at = 2; at < length; at++)
            size = size << 8 | data[at];
        if (size < (length == 4 ? 126 : 65536))
            return 0;
    }
    if (isMasked)
        length += 4;
    if (available < length || size > (uint64_t)maxPayload || size > (uint64_t)(available - length))
        return 0;
    frame->isText = data[0] == 0x81;
    frame->payload = data + length;
    frame->size = (Py_ssize_t)size;
    return 1;
}

/* Return the message of a frame, or NULL: without an exception if a text is not UTF-8. */
static PyObject *
messageOf(const Frame *frame, int isMasked)
{
    const char *plain = (const char *)frame->payload;
    PyObject *message = NULL, *text = NULL;

    if (isMasked || !frame->isText)
        message = PyBytes_FromStringAndSize(isMasked ? NULL : plain, frame->size);
    if (message != NULL && isMasked) {
        plain = PyBytes_AsString(message);
        copyMasked((unsigned char *)plain, frame->payload, frame->size, frame->payload - 4);
    }
    if (!frame->isText || PyErr_Occurred())
        return message;
    text = PyUnicode_DecodeUTF8(plain, frame->size, NULL);
    Py_XDECREF(message);
    if (text == NULL && PyErr_ExceptionMatches(PyExc_UnicodeDecodeError))
        PyErr_Clear();
    return text;
}

/* Read the plain data frames at a position, either with masks or without them. */
static PyObject *
readAll(PyObject *const *arguments, int isMasked, PyObject *meter)
{
    char *start;
    Py_ssize_t end, position, maxPayload, most, bytes = 0;
    PyObject *messages, *message;
    Frame frame;

    if (PyBytes_AsStringAndSize(arguments[0], &start, &end) < 0)
        return NULL;
    position = PyLong_AsSsize_t(arguments[1]);
    maxPayload = PyLong_AsSsize_t(arguments[2]);
    most = PyLong_AsSsize_t(arguments[3]);
    if (PyErr_Occurred())
        return NULL;
    if (position < 0 || position > end || maxPayload < 0) {
        PyErr_SetString(PyExc_ValueError, "a position outside of the data, or a negative limit");
        return NULL;
    }
    messages = PyList_New(0);
    for (; messages != NULL && most != 0; most--) {
        if (!findFrame((unsigned char *)start + position, end - position, isMasked, maxPayload, &frame) ||
            (message = messageOf(&frame, isMasked)) == NULL)
            break;
        if (PyList_Append(messages, message) < 0)
            Py_CLEAR(messages);
        Py_DECREF(message);
        bytes += frame.size;
        position = (Py_ssize_t)(frame.payload - (unsigned char *)start) + frame.size;
    }
    if (messages == NULL || PyErr_Occurred() || addTo(meter, PyList_Size(messages), bytes) < 0) {
        Py_XDECREF(messages);
        return NULL;
    }
    return filled(PyTuple_New(2), 2, (PyObject *[]){messages, PyLong_FromSsize_t(position)});
}

PyDoc_STRVAR(readMessages_doc, "readMessages(data, position, maxPayload, most, meter, /)\n--\n\n"
                               "Read the plain data frames of a client: see engineio/websocket/plain.py.");

static PyObject *
readMessages(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    return takes("readMessages", 5, count) ? readAll(arguments, 1, arguments[4]) : NULL;
}

PyDoc_STRVAR(readUnmasked_doc, "readUnmasked(data, position, maxPayload, most, /)\n--\n\n"
                               "Read the plain data frames of a server: see engineio/websocket/plain.py.");

static PyObject *
readUnmasked(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    return takes("readUnmasked", 4, count) ? readAll(arguments, 0, Py_None) : NULL;
}

/* Build the frame of a text in two parts: with a mask, a client's. */
static PyObject *
makeFrame(PyObject *type, PyObject *text, const char *mask, PyObject *meter)
{
    unsigned char head[14]; /* 2 bytes, at most 8 of length, and 4 of a mask */
    const char *parts[2];
    Py_ssize_t sizes[2], size;
    int at, length;
    PyObject *frame;
    unsigned char *target;

    if ((parts[0] = PyUnicode_AsUTF8AndSize(type, &sizes[0])) == NULL ||
        (parts[1] = PyUnicode_AsUTF8AndSize(text, &sizes[1])) == NULL)
        return NULL;
    size = sizes[0] + sizes[1];
    length = size < 126 ? 2 : size < 65536 ? 4 : 10;
    head[0] = 0x81;
    head[1] = (unsigned char)(length == 2 ? size : length == 4 ? 126 : 127);
    for (at = 2; at < length; at++)
        head[at] = (unsigned char)((uint64_t)size >> 8 * (length - 1 - at));
    if (mask != NULL) {
        head[1] |= 0x80;
        memcpy(head + length, mask, 4);
        length += 4;
    }
    if (addTo(meter, 1, size) < 0 || (frame = PyBytes_FromStringAndSize(NULL, length + size)) == NULL)
        return NULL;
    target = (unsigned char *)PyBytes_AsString(frame);
    memcpy(target, head, length);
    memcpy(target + length, parts[0], sizes[0]);
    memcpy(target + length + sizes[0], parts[1], sizes[1]);
    if (mask != NULL)
        copyMasked(target + length, target + length, size, (const unsigned char *)mask);
    return frame;
}

PyDoc_STRVAR(textFrame_doc, "textFrame(type, text, meter, /)\n--\n\nBuild the frame of a packet of text.");

static PyObject *
textFrame(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    return takes("textFrame", 3, count) ? makeFrame(arguments[0], arguments[1], NULL, arguments[2]) : NULL;
}

PyDoc_STRVAR(maskedTextFrame_doc, "maskedTextFrame(type, text, mask, /)\n--\n\n"
                                  "Build the masked frame of a packet of text.");

static PyObject *
maskedTextFrame(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    char *mask;
    Py_ssize_t size;

    if (!takes("maskedTextFrame", 3, count) || PyBytes_AsStringAndSize(arguments[2], &mask, &size) < 0)
        return NULL;
    if (size != 4) {
        PyErr_SetString(PyExc_ValueError, "a mask has 4 bytes");
        return NULL;
    }
    return makeFrame(arguments[0], arguments[1], mask, Py_None);
}

/* -- Socket.IO's events and acks -------------------------------------------------------------------------------- */

/* JavaScript has exact integers up to 2**53, which has 16 digits. */
#define MOST_ID_DIGITS 16

/* The head of an event or ack. */
typedef struct {
    int isAck;
    Py_ssize_t pathEnd; /* 0 without a namespace, whose path begins at 1 */
    long long id; /* -1 without one */
    Py_ssize_t length;
} Head;

/* Split the head of an event or ack from its arguments. Return 0 for any other packet, or with an exception. */
static int
splitHead(PyObject *message, Head *head)
{
    Py_ssize_t at = 1, end = PyUnicode_GetLength(message);
    Py_UCS4 letter = end < 2 ? 0 : PyUnicode_ReadChar(message, 0);
    int digits = 0;

    if (letter != '2' && letter != '3')
        return 0;
    head->isAck = letter == '3';
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
    return at < end && letter == '[' && (!head->isAck || digits);
}

/* Read the arguments behind a head. Return NULL without an exception if they are not JSON, or begin with no name. */
static PyObject *
readArguments(PyObject *message, const Head *head, PyObject *loads, PyObject *reserved)
{
    PyObject *text = PyUnicode_Substring(message, head->length, PyUnicode_GetLength(message)), *data, *name;

    if (text == NULL)
        return NULL;
    data = PyObject_CallFunctionObjArgs(loads, text, NULL);
    Py_DECREF(text);
    if (data == NULL && PyErr_ExceptionMatches(PyExc_ValueError))
        PyErr_Clear();
    if (data == NULL || head->isAck)
        return data;
    if (!PyList_Check(data) || PyList_Size(data) == 0 || !PyUnicode_CheckExact(name = PyList_GetItem(data, 0)) ||
        PySet_Contains(reserved, name) != 0)
        Py_CLEAR(data);
    return data;
}

PyDoc_STRVAR(readPlain_doc, "readPlain(message, loads, packetType, types, reserved, /)\n--\n\n"
                            "Read an event or ack without attachments: see socketio/packet.py.");

static PyObject *
readPlain(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    PyObject *message, *data;
    Head head;

    if (!takes("readPlain", 5, count))
        return NULL;
    if (!PyType_Check(arguments[2]) || !PyType_IsSubtype((PyTypeObject *)arguments[2], &PyTuple_Type) ||
        !PyTuple_Check(arguments[3]) || PyTuple_Size(arguments[3]) != 2 || !PyAnySet_Check(arguments[4])) {
        PyErr_SetString(PyExc_TypeError, "readPlain() takes a str, a function, a type of tuples, two values and a set");
        return NULL;
    }
    message = arguments[0];
    if (!splitHead(message, &head) || (data = readArguments(message, &head, arguments[1], arguments[4])) == NULL)
        return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
    /* As tuple.__new__() makes an instance of a subclass. */
    return filled(
        PyType_GenericAlloc((PyTypeObject *)arguments[2], 4), 4,
        (PyObject *[]){
            Py_NewRef(PyTuple_GetItem(arguments[3], head.isAck)),
            head.pathEnd ? PyUnicode_Substring(message, 1, head.pathEnd) : PyUnicode_FromStringAndSize("/", 1),
            data,
            head.id < 0 ? Py_NewRef(Py_None) : PyLong_FromLongLong(head.id),
        });
}

/* -- a broadcast ------------------------------------------------------------------------------------------------ */

#ifndef _WIN32

/*
 * Sockets that are written to at a time, without the GIL. One after the other, between the look-ups of the next member's
 * attributes, a send on loopback takes 5 % longer: the kernel and the interpreter drive each other out of the caches.
 */
#define AT_ONCE 64

typedef struct {
    PyObject *member, *transport; /* both owned; no transport if the member must take the ordinary way */
    int descriptor; /* of its socket, or -1 likewise */
    Py_ssize_t sent;
} Receiver;

/* Names of attributes, made when the module is imported. */
static struct {
    PyObject *connected, *session, *state, *_queue, *transport, *writable, *_sharesFrames, *_cork, *_send, *fileno,
        *follow;
} names;

/* Compare an attribute with an object. Return 0 with an exception if there is no such attribute. */
static int
isAttribute(PyObject *object, PyObject *name, PyObject *expected)
{
    PyObject *value = PyObject_GetAttr(object, name);
    Py_XDECREF(value);
    return value == expected;
}

/* Return the transport of a member that takes packets at once, as Session.sendPackets() finds it, or NULL. */
static PyObject *
transportOf(PyObject *member, PyObject *sessionType, PyObject *open)
{
    PyObject *session, *queue, *transport = NULL;

    if (!isAttribute(member, names.connected, Py_True) || (session = PyObject_GetAttr(member, names.session)) == NULL)
        return NULL;
    if (Py_IS_TYPE(session, (PyTypeObject *)sessionType) && isAttribute(session, names.state, open) &&
        (queue = PyObject_GetAttr(session, names._queue)) != NULL) {
        if (PyObject_Not(queue) == 1)
            transport = PyObject_GetAttr(session, names.transport);
        Py_DECREF(queue);
    }
    Py_DECREF(session);
    return transport;
}

/* Return the socket's descriptor of a transport that takes a frame at once, as WebSocketTransport.send() does, or -1. */
static int
descriptorOf(PyObject *transport, PyObject *transportType)
{
    PyObject *send, *socket, *number;
    int descriptor = -1;

    if (!Py_IS_TYPE(transport, (PyTypeObject *)transportType) || !isAttribute(transport, names.writable, Py_True) ||
        !isAttribute(transport, names._sharesFrames, Py_True) || !isAttribute(transport, names._cork, Py_None) ||
        (send = PyObject_GetAttr(transport, names._send)) == NULL)
        return -1;
    /* The number is asked for each time: the socket may be closed, and its number another's. */
    if (Py_IS_TYPE(send, &PyCFunction_Type) && (socket = PyCFunction_GetSelf(send)) != NULL &&
        (number = PyObject_CallMethodObjArgs(socket, names.fileno, NULL)) != NULL) {
        descriptor = (int)PyLong_AsLong(number);
        Py_DECREF(number);
    }
    Py_DECREF(send);
    return descriptor;
}

/*
 * Write a frame to the members from a place in the list on, AT_ONCE at most. Add to the rest who must take the ordinary
 * way, and tell the transport that has taken a part.
 */
static int
sendSome(PyObject *members, Py_ssize_t from, PyObject *frame, PyObject *const *types, PyObject *rest)
{
    Receiver receivers[AT_ONCE], *each = receivers, *end;
    const char *data = PyBytes_AsString(frame);
    Py_ssize_t size = PyBytes_Size(frame);

    for (; each < receivers + AT_ONCE && from < PyList_Size(members) && !PyErr_Occurred(); each++, from++) {
        each->member = Py_NewRef(PyList_GetItem(members, from));
        each->transport = transportOf(each->member, types[0], types[2]);
        each->descriptor = each->transport == NULL ? -1 : descriptorOf(each->transport, types[1]);
    }
    end = each;
    if (!PyErr_Occurred()) {
        Py_BEGIN_ALLOW_THREADS
        for (each = receivers; each < end; each++)
            each->sent = each->descriptor < 0 ? 0 : send(each->descriptor, data, size, MSG_DONTWAIT);
        Py_END_ALLOW_THREADS
    }
    for (each = receivers; each < end; each++) {
        PyObject *done = NULL;
        if (!PyErr_Occurred() && each->sent <= 0)
            PyList_Append(rest, each->member);
        else if (!PyErr_Occurred() && each->sent < size)
            done = PyObject_CallMethod(each->transport, "wroteLess", "On", frame, each->sent);
        Py_XDECREF(done);
        Py_XDECREF(each->transport);
        Py_DECREF(each->member);
    }
    return PyErr_Occurred() ? -1 : 0;
}

PyDoc_STRVAR(sendAll_doc, "sendAll(members, frame, sessionType, transportType, open, /)\n--\n\n"
                          "Write a frame to many sockets: see engineio/broadcast.py.");

static PyObject *
sendAll(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    PyObject *members, *rest;
    Py_ssize_t at;

    if (!takes("sendAll", 5, count))
        return NULL;
    members = arguments[0];
    if (!PyList_Check(members) || !PyBytes_Check(arguments[1])) {
        PyErr_SetString(PyExc_TypeError, "sendAll() takes a list, a frame, two types and a state");
        return NULL;
    }
    rest = PyList_New(0);
    /* The list's size is read anew each time, as other threads run while the GIL is released. */
    for (at = 0; rest != NULL && at < PyList_Size(members); at += AT_ONCE)
        if (sendSome(members, at, arguments[1], arguments + 2, rest) < 0)
            Py_CLEAR(rest);
    return rest;
}

/* -- the times of handlers -------------------------------------------------------------------------------------- */

static double
now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

/* Count a duration in a Histogram, a bytearray: the sum, the bounds, and one more bucket than bounds. */
static void
addTime(PyObject *histogram, double seconds)
{
    Py_ssize_t bounds = PyByteArray_Size(histogram) / 16 - 1, at = 0;
    char *numbers = PyByteArray_AsString(histogram), *bucket;
    double sum, bound;
    int64_t count;

    memcpy(&sum, numbers, 8);
    sum += seconds;
    memcpy(numbers, &sum, 8);
    while (at < bounds && (memcpy(&bound, numbers + 8 * (at + 1), 8), bound < seconds))
        at++;
    bucket = numbers + 8 * (bounds + 1 + at);
    memcpy(&count, bucket, 8);
    count++;
    memcpy(bucket, &count, 8);
}

PyDoc_STRVAR(timed_doc, "timed(function, first, others, counts, /)\n--\n\n"
                        "Call a function, and count the time: see monitor/counts.py.");

static PyObject *
timed(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    PyObject *others, *given, *result;
    Py_ssize_t at;
    double begun, seconds;

    if (!takes("timed", 4, count))
        return NULL;
    others = arguments[2];
    if (!PyList_Check(others) || !PyByteArray_Check(arguments[3]) || PyByteArray_Size(arguments[3]) < 16) {
        PyErr_SetString(PyExc_TypeError, "timed() takes a function, an argument, a list of others, and a histogram");
        return NULL;
    }
    given = PyTuple_New(PyList_Size(others) + 1);
    if (given == NULL)
        return NULL;
    PyTuple_SetItem(given, 0, Py_NewRef(arguments[1]));
    for (at = 0; at < PyList_Size(others); at++)
        PyTuple_SetItem(given, at + 1, Py_NewRef(PyList_GetItem(others, at)));
    begun = now();
    result = PyObject_Call(arguments[0], given, NULL);
    seconds = now() - begun;
    Py_DECREF(given);
    if (result != NULL && result != Py_None && !PyUnicode_CheckExact(result) && !PyLong_CheckExact(result) &&
        !PyBool_Check(result) && !PyDict_CheckExact(result) && !PyList_CheckExact(result)) {
        PyObject *time = PyFloat_FromDouble(seconds), *followed = NULL;
        if (time != NULL)
            followed = PyObject_CallMethodObjArgs(arguments[3], names.follow, result, time, NULL);
        Py_XDECREF(time);
        Py_DECREF(result);
        return followed;
    }
    addTime(arguments[3], seconds);
    return result;
}

#endif

/* -- the module ------------------------------------------------------------------------------------------------- */

#define FAST(name) {#name, (PyCFunction)(void (*)(void))name, METH_FASTCALL, name##_doc}

static PyMethodDef methods[] = {
    FAST(readMessages),
    FAST(readUnmasked),
    FAST(textFrame),
    FAST(maskedTextFrame),
    FAST(readPlain),
#ifndef _WIN32
    FAST(sendAll),
    FAST(timed),
#endif
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "txrealtime._speedups", "The innermost loops of the server in C.", -1, methods, NULL, NULL, NULL,
    NULL,
};

#define NAME(name) ((names.name = PyUnicode_InternFromString(#name)) == NULL)

PyMODINIT_FUNC
PyInit__speedups(void)
{
#ifndef _WIN32
    if (NAME(connected) || NAME(session) || NAME(state) || NAME(_queue) || NAME(transport) || NAME(writable) ||
        NAME(_sharesFrames) || NAME(_cork) || NAME(_send) || NAME(fileno) || NAME(follow))
        return NULL;
#endif
    return PyModule_Create(&definition);
}
