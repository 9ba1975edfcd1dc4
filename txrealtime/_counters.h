/*
 * Counters for metrics, a part of _speedups.c: the messages of frames with their bytes, and the times of handlers.
 */

#include <structmember.h>
#ifdef _WIN32
#include <windows.h>
#else
#include <time.h>
#endif

/* -- messages and their bytes ------------------------------------------------------------------------------------ */

typedef struct {
    PyObject_HEAD
    unsigned long long messages, bytes;
} Meter;

static PyMemberDef meterMembers[] = {
    {"messages", T_ULONGLONG, offsetof(Meter, messages), READONLY, NULL},
    {"bytes", T_ULONGLONG, offsetof(Meter, bytes), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

PyDoc_STRVAR(addMessages_doc, "add($self, messages, bytes, /)\n--\n\nCount some messages.");

static PyObject *
addMessages(Meter *self, PyObject *const *arguments, Py_ssize_t count)
{
    Py_ssize_t messages, bytes;

    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "add() takes 2 arguments");
        return NULL;
    }
    messages = PyLong_AsSsize_t(arguments[0]);
    bytes = PyLong_AsSsize_t(arguments[1]);
    if (PyErr_Occurred())
        return NULL;
    self->messages += messages;
    self->bytes += bytes;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(readCounted_doc, "readMessages($self, data, position, maxPayload, most, /)\n--\n\n"
                              "Read messages, as the function of this name, and count them.");

static PyObject *
readCounted(Meter *self, PyObject *const *arguments, Py_ssize_t count)
{
    PyObject *result = readMessages(NULL, arguments, count);
    Py_ssize_t position, stop;
    const unsigned char *data;
    Head head;

    if (result == NULL)
        return NULL;
    data = (const unsigned char *)PyBytes_AsString(arguments[0]);
    position = PyLong_AsSsize_t(arguments[1]);
    stop = PyLong_AsSsize_t(PyTuple_GetItem(result, 1));
    while (position < stop && readHead(data + position, stop - position, &head, 1)) {
        self->messages++;
        self->bytes += head.size;
        position += head.length + (Py_ssize_t)head.size;
    }
    return result;
}

/* Count a frame that was built, if it was. */
static PyObject *
countFrame(Meter *self, PyObject *frame)
{
    if (frame != NULL) {
        Py_ssize_t size = PyBytes_Size(frame);
        self->messages++;
        /* The payload's size is in 1, 3 or 9 bytes of the head (RFC 6455, 5.2). */
        self->bytes += size - (size < 128 ? 2 : size < 65540 ? 4 : 10);
    }
    return frame;
}

PyDoc_STRVAR(frameCounted_doc, "frame($self, payload, isBinary, /)\n--\n\n"
                               "Build a frame, as the function of this name, and count its message.");

static PyObject *
frameCounted(Meter *self, PyObject *const *arguments, Py_ssize_t count)
{
    return countFrame(self, frame(NULL, arguments, count));
}

PyDoc_STRVAR(textFrameCounted_doc, "textFrame($self, type, text, /)\n--\n\n"
                                   "Build a frame, as the function of this name, and count its message.");

static PyObject *
textFrameCounted(Meter *self, PyObject *const *arguments, Py_ssize_t count)
{
    return countFrame(self, textFrame(NULL, arguments, count));
}

#define METHOD(function) ((PyCFunction)(void (*)(void))function)

static PyMethodDef meterMethods[] = {
    {"add", METHOD(addMessages), METH_FASTCALL, addMessages_doc},
    {"readMessages", METHOD(readCounted), METH_FASTCALL, readCounted_doc},
    {"frame", METHOD(frameCounted), METH_FASTCALL, frameCounted_doc},
    {"textFrame", METHOD(textFrameCounted), METH_FASTCALL, textFrameCounted_doc},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot meterSlots[] = {
    {Py_tp_doc, "Meter()\n--\n\nA count of messages and of their bytes: see engineio/websocket/plain.py."},
    {Py_tp_members, meterMembers},
    {Py_tp_methods, meterMethods},
    {0, NULL},
};

static PyType_Spec meterSpec = {"txrealtime._speedups.Meter", sizeof(Meter), 0, Py_TPFLAGS_DEFAULT, meterSlots};

/* -- times --------------------------------------------------------------------------------------------------------- */

#define MOST_BOUNDS 16

typedef struct {
    PyObject_HEAD
    Py_ssize_t count; /* of the bounds */
    double bounds[MOST_BOUNDS], total;
    unsigned long long buckets[MOST_BOUNDS + 1];
} Histogram;

/* Return the time of a clock that is never set, in seconds. */
static double
now(void)
{
#ifdef _WIN32
    LARGE_INTEGER ticks, frequency;
    QueryPerformanceCounter(&ticks);
    QueryPerformanceFrequency(&frequency);
    return (double)ticks.QuadPart / (double)frequency.QuadPart;
#else
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
#endif
}

static void
addSeconds(Histogram *self, double seconds)
{
    Py_ssize_t at = 0;

    while (at < self->count && self->bounds[at] < seconds)
        at++;
    self->buckets[at]++;
    self->total += seconds;
}

static int
initHistogram(Histogram *self, PyObject *arguments, PyObject *named)
{
    PyObject *given, *bounds;
    Py_ssize_t at, count;

    if ((named != NULL && PyDict_Size(named)) || PyTuple_Size(arguments) != 1) {
        PyErr_SetString(PyExc_TypeError, "Histogram() takes the bounds");
        return -1;
    }
    given = PyTuple_GetItem(arguments, 0);
    if ((bounds = PySequence_Tuple(given)) == NULL)
        return -1;
    if ((count = PyTuple_Size(bounds)) > MOST_BOUNDS)
        PyErr_Format(PyExc_ValueError, "%zd bounds, and a histogram has %d at most", count, MOST_BOUNDS);
    for (at = 0; !PyErr_Occurred() && at < count; at++)
        self->bounds[at] = PyFloat_AsDouble(PyTuple_GetItem(bounds, at));
    Py_DECREF(bounds);
    if (PyErr_Occurred())
        return -1;
    self->count = count;
    return 0;
}

PyDoc_STRVAR(add_doc, "add($self, seconds, /)\n--\n\nCount a duration.");

static PyObject *
add(Histogram *self, PyObject *seconds)
{
    double given = PyFloat_AsDouble(seconds);
    if (PyErr_Occurred())
        return NULL;
    addSeconds(self, given);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(begin_doc, "begin($self, /)\n--\n\nReturn the time, for end().");

static PyObject *
begin(Histogram *self, PyObject *nothing)
{
    return PyFloat_FromDouble(now());
}

PyDoc_STRVAR(end_doc, "end($self, begun, /)\n--\n\nCount the time since a begin().");

static PyObject *
end(Histogram *self, PyObject *begun)
{
    double given = PyFloat_AsDouble(begun);
    if (PyErr_Occurred())
        return NULL;
    addSeconds(self, now() - given);
    Py_RETURN_NONE;
}

static PyObject *
getBounds(Histogram *self, void *closure)
{
    PyObject *bounds = PyTuple_New(self->count);
    Py_ssize_t at;

    for (at = 0; bounds != NULL && at < self->count; at++) {
        PyObject *each = PyFloat_FromDouble(self->bounds[at]);
        if (each == NULL)
            Py_CLEAR(bounds);
        else
            PyTuple_SetItem(bounds, at, each);
    }
    return bounds;
}

static PyObject *
getBuckets(Histogram *self, void *closure)
{
    PyObject *buckets = PyList_New(self->count + 1);
    Py_ssize_t at;

    for (at = 0; buckets != NULL && at <= self->count; at++) {
        PyObject *each = PyLong_FromUnsignedLongLong(self->buckets[at]);
        if (each == NULL)
            Py_CLEAR(buckets);
        else
            PyList_SetItem(buckets, at, each);
    }
    return buckets;
}

static PyObject *
getCount(Histogram *self, void *closure)
{
    unsigned long long count = 0;
    Py_ssize_t at;

    for (at = 0; at <= self->count; at++)
        count += self->buckets[at];
    return PyLong_FromUnsignedLongLong(count);
}

PyDoc_STRVAR(addAll_doc, "addAll($self, buckets, total, /)\n--\n\nAdd the durations of another histogram.");

static PyObject *
addAll(Histogram *self, PyObject *const *arguments, Py_ssize_t count)
{
    unsigned long long more[MOST_BOUNDS + 1];
    double total;
    Py_ssize_t at;

    if (count != 2 || !PyList_Check(arguments[0])) {
        PyErr_SetString(PyExc_TypeError, "addAll() takes a list and a number");
        return NULL;
    }
    if (PyList_Size(arguments[0]) != self->count + 1) {
        PyErr_SetString(PyExc_ValueError, "a histogram with other bounds");
        return NULL;
    }
    for (at = 0; at <= self->count; at++) {
        more[at] = PyLong_AsUnsignedLongLong(PyList_GetItem(arguments[0], at));
        if (PyErr_Occurred())
            return NULL;
    }
    total = PyFloat_AsDouble(arguments[1]);
    if (PyErr_Occurred())
        return NULL;
    for (at = 0; at <= self->count; at++)
        self->buckets[at] += more[at];
    self->total += total;
    Py_RETURN_NONE;
}

static PyMemberDef histogramMembers[] = {
    {"total", T_DOUBLE, offsetof(Histogram, total), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef histogramValues[] = {
    {"bounds", (getter)getBounds, NULL, NULL, NULL},
    {"buckets", (getter)getBuckets, NULL, NULL, NULL},
    {"count", (getter)getCount, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef histogramMethods[] = {
    {"add", (PyCFunction)add, METH_O, add_doc},
    {"addAll", METHOD(addAll), METH_FASTCALL, addAll_doc},
    {"begin", (PyCFunction)begin, METH_NOARGS, begin_doc},
    {"end", (PyCFunction)end, METH_O, end_doc},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot histogramSlots[] = {
    {Py_tp_doc, "Histogram(bounds, /)\n--\n\nA count of durations by their size: see engineio/counts.py."},
    {Py_tp_init, initHistogram},
    {Py_tp_members, histogramMembers},
    {Py_tp_getset, histogramValues},
    {Py_tp_methods, histogramMethods},
    {0, NULL},
};

static PyType_Spec histogramSpec = {
    "txrealtime._speedups.Histogram", sizeof(Histogram), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE, histogramSlots,
};

/* Add the types to the module. */
static int
addCounters(PyObject *module)
{
    PyType_Spec *specs[] = {&meterSpec, &histogramSpec};
    const char *typeNames[] = {"Meter", "Histogram"};
    int at, failed = 0;

    for (at = 0; !failed && at < 2; at++) {
        PyObject *type = PyType_FromSpec(specs[at]);
        failed = type == NULL || PyModule_AddObjectRef(module, typeNames[at], type) < 0;
        Py_XDECREF(type);
    }
    return failed;
}
