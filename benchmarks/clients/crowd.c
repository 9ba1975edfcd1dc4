/*
 * A crowd of Socket.IO clients over WebSocket, in one thread and with one epoll.
 *
 *     cc -O2 -o crowd crowd.c
 *     ./crowd PORT CLIENTS SOURCES AT_ONCE
 *
 * The clients connect to 127.0.0.1 from SOURCES addresses, 127.0.1.1 and so on: one address has some 28,000
 * ports.  At most AT_ONCE of them open at a time.  Each enters the namespace "/" and the room "red", and answers
 * heartbeats.  A client that loses its connection, or is refused, comes back as socket.io-client does: after
 * 1 s, then 2 and 4, then 5, each plus or minus up to half, and it gives an attempt 20 s.
 *
 * Each line of standard input is answered by one line of JSON with the counts.  "reset" sets the counts to 0
 * first, "open N" is the number of clients that should be open.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#ifndef IP_BIND_ADDRESS_NO_PORT
#define IP_BIND_ADDRESS_NO_PORT 24
#endif

#define ROOM 2048
#define PATIENCE 20.0

enum state { IDLE, CONNECTING, UPGRADING, OPENING, JOINING, UP, WAITING };

struct client {
    int fd;
    uint8_t state, attempts;
    uint16_t have;
    double due;  /* of the attempt's end, or of the next attempt */
    double down; /* the time at which the connection was lost */
    char *data;  /* a part of a frame or a head, allocated while there is one */
};

static struct client *clients;
static int count, sources, atOnce, epoll, opening, wanted;
static struct sockaddr_in server;
static char upgrade[512];
static long up, opened, lost, refused, failed, late, messages, pings;
static double lastMessage, firstLost, lastUp;
static double *away; /* the seconds that each client was away */
static long aways;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void send_text(struct client *c, const char *text)
{
    char frame[160] = {0};
    int size = strlen(text);
    frame[0] = (char)0x81;
    frame[1] = (char)(0x80 | size); /* masked with zeros */
    memcpy(frame + 6, text, size);
    if (write(c->fd, frame, 6 + size) < 0)
        return; /* the end of the connection is read */
}

static void again(struct client *c)
{
    double t = now(), ms = 1000.0 * (1 << (c->attempts < 10 ? c->attempts : 10));
    double chance = drand48(), deviation = chance * 0.5 * ms;
    ms = ((int)(chance * 10) & 1) == 0 ? ms - deviation : ms + deviation;
    if (ms > 5000)
        ms = 5000;
    c->attempts += c->attempts < 100;
    if (c->state == UP) {
        up--;
        lost++;
        c->down = t;
        if (firstLost == 0)
            firstLost = t;
    } else {
        opening--;
    }
    close(c->fd);
    free(c->data);
    c->data = NULL;
    c->fd = -1;
    c->have = 0;
    c->state = WAITING;
    c->due = t + ms / 1000;
}

static void connect_client(struct client *c)
{
    struct sockaddr_in from = {.sin_family = AF_INET};
    int number = (int)(c - clients) % sources, one = 1;
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT, .data.u32 = (uint32_t)(c - clients)};
    from.sin_addr.s_addr = htonl(0x7f000101u + number);
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    opening++;
    c->state = CONNECTING;
    c->due = now() + PATIENCE;
    if (c->fd < 0) {
        perror("socket");
        exit(1);
    }
    setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (bind(c->fd, (void *)&from, sizeof from) < 0) {
        perror("bind");
        exit(1);
    }
    if (connect(c->fd, (void *)&server, sizeof server) < 0 && errno != EINPROGRESS) {
        failed++;
        again(c);
        return;
    }
    epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &event);
}

static void connected(struct client *c)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = (uint32_t)(c - clients)};
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error || write(c->fd, upgrade, strlen(upgrade)) < 0) {
        failed++;
        again(c);
        return;
    }
    epoll_ctl(epoll, EPOLL_CTL_MOD, c->fd, &event);
    c->state = UPGRADING;
}

static void packet(struct client *c, const char *text, long size)
{
    double t;
    if (size == 1 && text[0] == '2') {
        pings++;
        send_text(c, "3");
    } else if (c->state == OPENING && size > 1 && text[0] == '0') {
        send_text(c, "40");
        c->state = JOINING;
    } else if (c->state == JOINING && size > 2 && !memcmp(text, "40{", 3)) {
        send_text(c, "42100[\"join\",\"red\"]");
    } else if (c->state == JOINING && size > 5 && !memcmp(text, "43100", 5)) {
        t = now();
        c->state = UP;
        c->attempts = 0;
        opening--;
        up++;
        opened++;
        lastUp = t;
        if (c->down)
            away[aways++ % count] = t - c->down;
        c->down = 0;
    } else if (c->state == UP && size > 2 && !memcmp(text, "42[", 3)) {
        messages++;
        lastMessage = now();
    }
}

/* Handle what has come; return 0 if the connection has ended. */
static int take(struct client *c, char *data, long size)
{
    long at = 0;
    if (c->state == UPGRADING) {
        char *end = memmem(data, size, "\r\n\r\n", 4);
        if (end == NULL)
            goto keep;
        if (size < 12 || memcmp(data, "HTTP/1.1 101", 12)) {
            refused++;
            return 0;
        }
        c->state = OPENING;
        at = end + 4 - data;
    }
    while (size - at >= 2) {
        const unsigned char *head = (void *)(data + at);
        long length = head[1] & 127, start = at + 2;
        if (length == 126) {
            if (size - at < 4)
                break;
            length = head[2] << 8 | head[3];
            start = at + 4;
        }
        if (start + length > size)
            break;
        if ((head[0] & 15) == 8)
            return 0;
        if ((head[0] & 15) == 1)
            packet(c, data + start, length);
        at = start + length;
    }
keep:
    if (at < size) {
        if (size - at > ROOM)
            return 0;
        if (c->data == NULL)
            c->data = malloc(ROOM);
        memmove(c->data, data + at, size - at);
    } else {
        free(c->data);
        c->data = NULL;
    }
    c->have = size - at;
    return 1;
}

static void readable(struct client *c)
{
    static char buffer[ROOM + 65536];
    long size;
    memcpy(buffer, c->data ? c->data : buffer, c->have);
    size = read(c->fd, buffer + c->have, 65536);
    if (size < 0 && errno == EAGAIN)
        return;
    if (size <= 0 || !take(c, buffer, size + c->have)) {
        if (c->state != UP && size <= 0)
            failed++;
        again(c);
    }
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void answer(void)
{
    static char line[256];
    long n;
    if (fgets(line, sizeof line, stdin) == NULL)
        exit(0);
    if (!strncmp(line, "reset", 5)) {
        opened = lost = refused = failed = late = messages = pings = aways = 0;
        lastMessage = firstLost = lastUp = 0;
    }
    if (!strncmp(line, "open ", 5))
        wanted = atoi(line + 5);
    n = aways < count ? aways : count;
    qsort(away, n, sizeof *away, compare);
    printf("{\"up\":%ld,\"opened\":%ld,\"lost\":%ld,\"refused\":%ld,\"failed\":%ld,\"late\":%ld,\"messages\":%ld,"
           "\"pings\":%ld,\"lastMessage\":%.6f,\"firstLost\":%.6f,\"lastUp\":%.6f,\"half\":%.3f,\"most\":%.3f,"
           "\"slowest\":%.3f}\n",
           up, opened, lost, refused, failed, late, messages, pings, lastMessage, firstLost, lastUp,
           n ? away[n / 2] : 0, n ? away[n * 99 / 100] : 0, n ? away[n - 1] : 0);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    static struct epoll_event events[1024];
    struct epoll_event input = {.events = EPOLLIN, .data.u32 = UINT32_MAX};
    struct rlimit limit;
    double looked = 0;
    int next = 0;
    if (argc != 5) {
        fprintf(stderr, "usage: crowd PORT CLIENTS SOURCES AT_ONCE\n");
        return 2;
    }
    server.sin_family = AF_INET;
    server.sin_port = htons(atoi(argv[1]));
    server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    wanted = count = atoi(argv[2]);
    sources = atoi(argv[3]);
    atOnce = atoi(argv[4]);
    clients = calloc(count, sizeof *clients);
    away = calloc(count, sizeof *away);
    limit.rlim_cur = limit.rlim_max = count + 1000;
    if (setrlimit(RLIMIT_NOFILE, &limit) < 0) {
        getrlimit(RLIMIT_NOFILE, &limit);
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    srand48(1);
    snprintf(upgrade, sizeof upgrade,
             "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: 127.0.0.1:%s\r\n"
             "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n"
             "Accept: */*\r\nAccept-Language: en-US,en;q=0.5\r\nSec-WebSocket-Version: 13\r\n"
             "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nConnection: keep-alive, Upgrade\r\n"
             "Pragma: no-cache\r\nCache-Control: no-cache\r\nUpgrade: websocket\r\n\r\n",
             argv[1]);
    epoll = epoll_create1(0);
    epoll_ctl(epoll, EPOLL_CTL_ADD, 0, &input);
    for (;;) {
        int n = epoll_wait(epoll, events, 1024, next < wanted ? 1 : 10), i;
        double t = now();
        for (i = 0; i < n; i++) {
            struct client *c;
            if (events[i].data.u32 == UINT32_MAX) {
                answer();
                continue;
            }
            c = clients + events[i].data.u32;
            if (c->fd < 0)
                continue;
            if (c->state == CONNECTING)
                connected(c);
            else
                readable(c);
        }
        while (next < wanted && opening < atOnce)
            connect_client(clients + next++);
        if (t - looked > 0.01 && up < next) {
            looked = t;
            for (i = 0; i < next; i++) {
                struct client *c = clients + i;
                if (c->state == UP || c->due > t)
                    continue;
                if (c->state == WAITING) {
                    connect_client(c);
                } else {
                    late++;
                    again(c);
                }
            }
        }
    }
}
