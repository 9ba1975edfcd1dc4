/*
 * The innermost loops of the server in C.
 *
 * Each function here has a reference in Python of the same name, marked by @accelerated of txrealtime/speedups.py, and
 * has the same results on the same arguments: tests/test_speedups.py compares the two. Without a compiler, or with
 * TXREALTIME_PURE=1, the references run.
 *
 * Only the limited API of Python 3.11 is used, so one build serves all later releases. Every function keeps the GIL,
 * except sendAll around its system calls.
 */

#define PY_SSIZE_T_CLEAN
#ifndef Py_GIL_DISABLED
#define Py_LIMITED_API 0x030b0000
#endif
#include <Python.h>

#include <stdint.h>
#include <string.h>

#ifndef _WIN32
#include <errno.h>
#include <sys/socket.h>
#endif

/* RFC 6455, 5.2: a head has 2 bytes, at most 8 of length, and 4 of a client's mask. */
#define MOST_HEAD 14

/* A message up to this size is unmasked on the stack before it becomes a str. */
#define ON_STACK 4096

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

/* -- frames ---------------------------------------------------------------------------------------------------- */

/* Apply a mask (RFC 6455, 5.3), 8 bytes at a time. The source and the target may be the same. */
static void
applyMask(unsigned char *target, const unsigned char *source, Py_ssize_t size, const unsigned char *mask)
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

static PyObject *
unmasked(const unsigned char *source, Py_ssize_t size, const unsigned char *mask)
{
    PyObject *payload = PyBytes_FromStringAndSize(NULL, size);
    if (payload != NULL)
        applyMask((unsigned char *)PyBytes_AsString(payload), source, size, mask);
    return payload;
}

/* Return the text of a payload, or NULL: without an exception if it is not UTF-8. */
static PyObject *
unmaskedText(const unsigned char *source, Py_ssize_t size, const unsigned char *mask)
{
    unsigned char onStack[ON_STACK], *plain = onStack;
    PyObject *text;

    if (size > ON_STACK && (plain = PyMem_Malloc(size)) == NULL)
        return PyErr_NoMemory();
    applyMask(plain, source, size, mask);
    text = PyUnicode_DecodeUTF8((char *)plain, size, NULL);
    if (plain != onStack)
        PyMem_Free(plain);
    if (text == NULL && PyErr_ExceptionMatches(PyExc_UnicodeDecodeError))
        PyErr_Clear();
    return text;
}

/* The head of a frame. */
typedef struct {
    unsigned char first, isMasked;
    uint64_t size;
    Py_ssize_t length; /* of the head itself */
} Head;

/*
 * Read the head of a plain data frame: whole, final, of type text or binary, its length in the shortest form, and with a
 * mask or without one, as is demanded.
 */
static int
readHead(const unsigned char *data, Py_ssize_t size, Head *head, int isMasked)
{
    int at, most, mask = isMasked ? 4 : 0;

    if (size < 2 + mask || (data[0] != 0x81 && data[0] != 0x82) || !(data[1] & 0x80) != !isMasked)
        return 0;
    head->isMasked = (unsigned char)isMasked;
    head->first = data[0];
    head->size = data[1] & 0x7f;
    most = head->size < 126 ? 2 : head->size == 126 ? 4 : 10;
    head->length = most + mask;
    if (most > 2) {
        if (size < head->length)
            return 0;
        for (head->size = 0, at = 2; at < most; at++)
            head->size = head->size << 8 | data[at];
        if (head->size < (most == 4 ? 126 : 65536))
            return 0;
    }
    return 1;
}

/* Return the message of a payload: see unmaskedText(). */
static PyObject *
messageOf(const Head *head, const unsigned char *payload)
{
    PyObject *text;
    Py_ssize_t size = (Py_ssize_t)head->size;

    if (head->isMasked)
        return head->first == 0x81 ? unmaskedText(payload, size, payload - 4) : unmasked(payload, size, payload - 4);
    if (head->first == 0x82)
        return PyBytes_FromStringAndSize((const char *)payload, size);
    text = PyUnicode_DecodeUTF8((const char *)payload, size, NULL);
    if (text == NULL && PyErr_ExceptionMatches(PyExc_UnicodeDecodeError))
        PyErr_Clear();
    return text;
}

/* Read the plain data frames at a position, either with masks or without them. */
static PyObject *
readAll(PyObject *const *arguments, Py_ssize_t count, int areMasked)
{
    char *start;
    Py_ssize_t end, position, most, maxPayload;
    PyObject *messages;
    Head head;

    if (count != 4) {
        PyErr_SetString(PyExc_TypeError, "4 arguments are expected");
        return NULL;
    }
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
    if ((messages = PyList_New(0)) == NULL)
        return NULL;
    for (; most != 0 && readHead((unsigned char *)start + position, end - position, &head, areMasked); most--) {
        const unsigned char *payload = (unsigned char *)start + position + head.length;
        PyObject *message;
        int failed;

        if (head.size > (uint64_t)maxPayload || head.size > (uint64_t)(end - position - head.length))
            break;
        message = messageOf(&head, payload);
        if (message == NULL) {
            if (!PyErr_Occurred())
                break;
            Py_DECREF(messages);
            return NULL;
        }
        failed = PyList_Append(messages, message);
        Py_DECREF(message);
        if (failed) {
            Py_DECREF(messages);
            return NULL;
        }
        position += head.length + (Py_ssize_t)head.size;
    }
    return filled(PyTuple_New(2), 2, (PyObject *[]){messages, PyLong_FromSsize_t(position)});
}

PyDoc_STRVAR(readMessages_doc, "readMessages(data, position, maxPayload, most, /)\n--\n\n"
                               "Read the plain data frames of a client: see engineio/websocket/plain.py.");

static PyObject *
readMessages(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    return readAll(arguments, count, 1);
}

PyDoc_STRVAR(readUnmasked_doc, "readUnmasked(data, position, maxPayload, most, /)\n--\n\n"
                               "Read the plain data frames of a server: see engineio/websocket/plain.py.");

static PyObject *
readUnmasked(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    return readAll(arguments, count, 0);
}

/* Return the 4 bytes of a mask, or NULL with an exception. */
static const unsigned char *
maskOf(PyObject *given)
{
    char *mask;
    Py_ssize_t size;

    if (PyBytes_AsStringAndSize(given, &mask, &size) < 0)
        return NULL;
    if (size != 4) {
        PyErr_SetString(PyExc_ValueError, "a mask has 4 bytes");
        return NULL;
    }
    return (unsigned char *)mask;
}

PyDoc_STRVAR(unmask_doc, "unmask(payload, mask, /)\n--\n\nApply a mask of 4 bytes to a payload (RFC 6455, 5.3).");

static PyObject *
unmask(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    const unsigned char *mask;
    char *payload;
    Py_ssize_t size;

    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "unmask() takes 2 arguments");
        return NULL;
    }
    if (PyBytes_AsStringAndSize(arguments[0], &payload, &size) < 0 || (mask = maskOf(arguments[1])) == NULL)
        return NULL;
    return unmasked((unsigned char *)payload, size, mask);
}

/* Build a frame of a payload in two parts: with a mask, a client's. */
static PyObject *
makeFrame(int isBinary, const char *type, Py_ssize_t typeSize, const char *payload, Py_ssize_t payloadSize,
          const unsigned char *mask)
{
    unsigned char head[MOST_HEAD];
    uint64_t size = (uint64_t)typeSize + (uint64_t)payloadSize;
    int at, length = size < 126 ? 2 : size < 65536 ? 4 : 10;
    PyObject *frame;
    char *target;

    head[0] = isBinary ? 0x82 : 0x81;
    head[1] = (unsigned char)(length == 2 ? size : length == 4 ? 126 : 127);
    for (at = 2; at < length; at++)
        head[at] = (unsigned char)(size >> 8 * (length - 1 - at));
    if (mask != NULL) {
        head[1] |= 0x80;
        memcpy(head + length, mask, 4);
        length += 4;
    }
    if ((frame = PyBytes_FromStringAndSize(NULL, length + typeSize + payloadSize)) == NULL)
        return NULL;
    target = PyBytes_AsString(frame);
    memcpy(target, head, length);
    memcpy(target + length, type, typeSize);
    memcpy(target + length + typeSize, payload, payloadSize);
    if (mask != NULL)
        applyMask((unsigned char *)target + length, (unsigned char *)target + length, (Py_ssize_t)size, mask);
    return frame;
}

PyDoc_STRVAR(frame_doc, "frame(payload, isBinary, /)\n--\n\n"
                        "Build an unmasked, unfragmented data frame (RFC 6455, 5.2).");

static PyObject *
frame(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    char *payload;
    Py_ssize_t size;
    int isBinary;

    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "frame() takes 2 arguments");
        return NULL;
    }
    if (PyBytes_AsStringAndSize(arguments[0], &payload, &size) < 0 ||
        (isBinary = PyObject_IsTrue(arguments[1])) < 0)
        return NULL;
    return makeFrame(isBinary, "", 0, payload, size, NULL);
}

PyDoc_STRVAR(textFrame_doc, "textFrame(type, text, /)\n--\n\nBuild the frame of a packet of text.");

static PyObject *
textFrame(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    const char *type, *text;
    Py_ssize_t typeSize, size;

    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "textFrame() takes 2 arguments");
        return NULL;
    }
    if ((type = PyUnicode_AsUTF8AndSize(arguments[0], &typeSize)) == NULL ||
        (text = PyUnicode_AsUTF8AndSize(arguments[1], &size)) == NULL)
        return NULL;
    return makeFrame(0, type, typeSize, text, size, NULL);
}

PyDoc_STRVAR(maskedFrame_doc, "maskedFrame(payload, isBinary, mask, /)\n--\n\n"
                              "Build a masked, unfragmented data frame (RFC 6455, 5.2 and 5.3).");

static PyObject *
maskedFrame(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    const unsigned char *mask;
    char *payload;
    Py_ssize_t size;
    int isBinary;

    if (count != 3) {
        PyErr_SetString(PyExc_TypeError, "maskedFrame() takes 3 arguments");
        return NULL;
    }
    if (PyBytes_AsStringAndSize(arguments[0], &payload, &size) < 0 ||
        (isBinary = PyObject_IsTrue(arguments[1])) < 0 || (mask = maskOf(arguments[2])) == NULL)
        return NULL;
    return makeFrame(isBinary, "", 0, payload, size, mask);
}

PyDoc_STRVAR(maskedTextFrame_doc, "maskedTextFrame(type, text, mask, /)\n--\n\n"
                                  "Build the masked frame of a packet of text.");

static PyObject *
maskedTextFrame(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    const unsigned char *mask;
    const char *type, *text;
    Py_ssize_t typeSize, size;

    if (count != 3) {
        PyErr_SetString(PyExc_TypeError, "maskedTextFrame() takes 3 arguments");
        return NULL;
    }
    if ((type = PyUnicode_AsUTF8AndSize(arguments[0], &typeSize)) == NULL ||
        (text = PyUnicode_AsUTF8AndSize(arguments[1], &size)) == NULL || (mask = maskOf(arguments[2])) == NULL)
        return NULL;
    return makeFrame(0, type, typeSize, text, size, mask);
}

#include "_packets.h"

/* -- a broadcast ------------------------------------------------------------------------------------------------ */

#ifndef _WIN32

/* Sockets that are written to before the interpreter looks at the results. */
#define AT_ONCE 64

/* Members after which sendAll gives up if none was ready: none ever is that polls. */
#define PATIENCE 8

typedef struct {
    PyObject *member, *transport; /* both owned */
    int fd; /* of its socket, or -1 if the transport must write */
    Py_ssize_t sent;
} Receiver;

/* Names of attributes, made when the module is imported. */
static struct {
    PyObject *connected, *session, *state, *_queue, *transport, *writable, *_sharesFrames, *_cork, *_send, *writeNow,
        *fileno;
} names;

/* Compare an attribute with an object: 1 if it is that one, 0 if not, -1 with an exception. */
static int
attributeIs(PyObject *object, PyObject *name, PyObject *expected)
{
    PyObject *value = PyObject_GetAttr(object, name);
    Py_XDECREF(value);
    return value == NULL ? -1 : value == expected;
}

/* Return the descriptor of the socket whose send() a transport keeps, or -1: with an exception if something failed. */
static int
descriptorOf(PyObject *transport)
{
    PyObject *send = PyObject_GetAttr(transport, names._send), *owner;
    int fd = -1;

    if (send != NULL && Py_IS_TYPE(send, &PyCFunction_Type) && (owner = PyCFunction_GetSelf(send)) != NULL) {
        PyObject *number = PyObject_CallMethodObjArgs(owner, names.fileno, NULL);
        if (number != NULL)
            fd = (int)PyLong_AsLong(number);
        Py_XDECREF(number);
    }
    Py_XDECREF(send);
    return fd;
}

/*
 * See if a member can be written to at once, as Session.sendPackets() and WebSocketTransport.send() do.
 *
 * 1 if so, with what the receiver owns; 0 if the member must take the ordinary way; -1 with an exception.
 */
static int
isReady(PyObject *member, PyObject *const *types, PyObject *open, Receiver *receiver)
{
    PyObject *session = NULL, *transport = NULL, *queue = NULL;
    int ready;

    receiver->fd = -1;
    if ((ready = attributeIs(member, names.connected, Py_True)) == 1 &&
        ((session = PyObject_GetAttr(member, names.session)) == NULL ||
         (ready = Py_TYPE(session) == (PyTypeObject *)types[0]) == 0 ||
         (ready = attributeIs(session, names.state, open)) != 1 ||
         (queue = PyObject_GetAttr(session, names._queue)) == NULL || (ready = PyObject_Not(queue)) != 1 ||
         (transport = PyObject_GetAttr(session, names.transport)) == NULL ||
         (ready = Py_TYPE(transport) == (PyTypeObject *)types[1]) == 0 ||
         (ready = attributeIs(transport, names.writable, Py_True)) != 1 ||
         (ready = attributeIs(transport, names._sharesFrames, Py_True)) != 1 ||
         (ready = attributeIs(transport, names._cork, Py_None)) != 1))
        ready = 0;
    else if (ready == 1)
        receiver->fd = descriptorOf(transport);
    if (PyErr_Occurred())
        ready = -1;
    if (ready == 1) {
        receiver->member = Py_NewRef(member);
        receiver->transport = Py_NewRef(transport);
    }
    Py_XDECREF(session);
    Py_XDECREF(queue);
    Py_XDECREF(transport);
    return ready;
}

/* Write a frame to some sockets. Add to the rest who has taken nothing, and tell the transport that has taken a part. */
static int
writeTo(Receiver *receivers, int count, PyObject *frame, PyObject *rest)
{
    char *data;
    Py_ssize_t size;
    int at, failed = PyBytes_AsStringAndSize(frame, &data, &size) < 0;

    if (!failed) {
        Py_BEGIN_ALLOW_THREADS
        for (at = 0; at < count; at++)
            receivers[at].sent = send(receivers[at].fd, data, size, MSG_DONTWAIT);
        Py_END_ALLOW_THREADS
    }
    for (at = 0; at < count; at++) {
        Receiver *each = receivers + at;
        if (!failed && each->sent <= 0 && size > 0)
            failed = PyList_Append(rest, each->member) < 0;
        else if (!failed && each->sent < size) {
            PyObject *done = PyObject_CallMethod(each->transport, "wroteLess", "On", frame, each->sent);
            failed = done == NULL;
            Py_XDECREF(done);
        }
        Py_DECREF(each->member);
        Py_DECREF(each->transport);
    }
    return failed ? -1 : 0;
}

/* Have a transport write a frame, as over TLS. */
static int
writeBy(Receiver *receiver, PyObject *frame)
{
    PyObject *done = PyObject_CallMethodObjArgs(receiver->transport, names.writeNow, frame, NULL);

    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

PyDoc_STRVAR(sendAll_doc, "sendAll(members, frame, sessionType, transportType, open, /)\n--\n\n"
                          "Write a frame to many sockets: see engineio/broadcast.py.");

static PyObject *
sendAll(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    Receiver receivers[AT_ONCE];
    PyObject *members, *rest;
    Py_ssize_t at = 0;
    int waiting = 0, ready = 0, someReady = 0;

    if (count != 5 || !PyList_Check(arguments[0]) || !PyBytes_Check(arguments[1])) {
        PyErr_SetString(PyExc_TypeError, "sendAll() takes a list, a frame, two types and a state");
        return NULL;
    }
    members = arguments[0];
    if ((rest = PyList_New(0)) == NULL)
        return NULL;
    /* The list's size is read anew each time, as other threads run while the GIL is released. */
    for (; ready >= 0 && at < PyList_Size(members); at++) {
        if (at == PATIENCE && !someReady) {
            Py_DECREF(rest);
            return Py_NewRef(members);
        }
        PyObject *member = Py_NewRef(PyList_GetItem(members, at));
        ready = isReady(member, arguments + 2, arguments[4], receivers + waiting);
        if (ready == 1 && receivers[waiting].fd < 0) {
            /* The transport's code may close the sockets of others: those that wait are written to before. */
            Receiver slow = receivers[waiting];
            ready = writeTo(receivers, waiting, arguments[1], rest) || writeBy(&slow, arguments[1]) ? -1 : 0;
            waiting = 0;
            someReady = 1;
            Py_DECREF(slow.member);
            Py_DECREF(slow.transport);
        } else if (ready == 1)
            someReady = ++waiting;
        else if (ready == 0)
            ready = PyList_Append(rest, member);
        Py_DECREF(member);
        if (waiting == AT_ONCE) {
            ready = writeTo(receivers, waiting, arguments[1], rest);
            waiting = 0;
        }
    }
    if (ready >= 0)
        ready = writeTo(receivers, waiting, arguments[1], rest);
    else
        for (; waiting > 0; waiting--) {
            Py_DECREF(receivers[waiting - 1].member);
            Py_DECREF(receivers[waiting - 1].transport);
        }
    if (ready < 0)
        Py_CLEAR(rest);
    return rest;
}

#endif

#include "_counters.h"

/* -- the module ------------------------------------------------------------------------------------------------- */

#define FAST(name) {#name, (PyCFunction)(void (*)(void))name, METH_FASTCALL, name##_doc}

static PyMethodDef methods[] = {
    FAST(readMessages),
    FAST(unmask),
    FAST(frame),
    FAST(textFrame),
    FAST(readUnmasked),
    FAST(maskedFrame),
    FAST(maskedTextFrame),
    FAST(readPlain),
    FAST(encodeBehind),
#ifndef _WIN32
    FAST(sendAll),
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
    PyObject *module;

#ifndef _WIN32
    if (NAME(connected) || NAME(session) || NAME(state) || NAME(_queue) || NAME(transport) || NAME(writable) ||
        NAME(_sharesFrames) || NAME(_cork) || NAME(_send) || NAME(writeNow) ||
        NAME(fileno))
        return NULL;
#endif
    module = PyModule_Create(&definition);
    if (module != NULL && addCounters(module))
        Py_CLEAR(module);
    return module;
}
