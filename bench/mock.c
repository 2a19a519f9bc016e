// An OpenAI-compatible upstream that costs next to nothing: one thread, epoll, no JSON parser.
//
//   mock PORT
//
//   POST …/chat/completions   one answer of about 1 KB with usage, or a stream of chunks, a usage chunk and [DONE]
//   GET  /stats               what was asked and sent, as JSON
//   GET  anything else        a list of models
//
// How to answer is written in the upstream model name, so a gateway that answers has proven that it rewrote the model:
// up-n<chunks>-d<milliseconds between chunks>-s<bytes per chunk>-f<fault>. The faults break a stream on purpose and
// show that the load generator notices.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "marks.h"

enum { WHEEL_SLOTS = 8192, MAX_DELAY_MS = 8000, MAX_CHUNK_BYTES = 8000, EVENTS = 512, FAULTY_CHUNK = 3 };
enum fault { NO_FAULT, LOSE_A_CHUNK, SWAP_TWO_CHUNKS, END_EARLY, WRONG_TICKET, REPEAT_A_CHUNK };

typedef struct {
    char *bytes;
    size_t length, capacity, taken;
} buffer;

typedef struct connection {
    int socket;
    bool awaits_room, streaming, close_after;
    buffer in, out;
    int chunks, sent, delay_ms, chunk_bytes, ticket;
    enum fault fault;
    int64_t due_ns;
    char model[96];
    struct connection *next, **link; // in a slot of the timer wheel
} connection;

typedef struct {
    char *head, *body;
    size_t head_length, body_length, total;
} request;

static connection *wheel[WHEEL_SLOTS];
static int64_t wheel_tick_ms;
static int epoll, scheduled;
static struct {
    unsigned long answers, streams, chunks, aborted, connections;
} stats;
static char filler[MAX_CHUNK_BYTES];

// As a hosted provider sends them.
static const char *PROVIDER_HEADERS = "date: Fri, 20 Nov 2026 12:00:00 GMT\r\n"
                                      "access-control-expose-headers: X-Request-ID\r\n"
                                      "openai-organization: bench-org\r\n"
                                      "openai-processing-ms: 12\r\n"
                                      "openai-project: proj_bench\r\n"
                                      "openai-version: 2020-10-01\r\n"
                                      "x-envoy-upstream-service-time: 14\r\n"
                                      "x-ratelimit-limit-requests: 30000\r\n"
                                      "x-ratelimit-limit-tokens: 150000000\r\n"
                                      "x-ratelimit-remaining-requests: 29999\r\n"
                                      "x-ratelimit-remaining-tokens: 149999967\r\n"
                                      "x-ratelimit-reset-requests: 2ms\r\n"
                                      "x-ratelimit-reset-tokens: 0s\r\n"
                                      "x-request-id: req_0123456789abcdef0123456789abcdef\r\n"
                                      "x-openai-proxy-wasm: v0.1\r\n"
                                      "cf-cache-status: DYNAMIC\r\n"
                                      "strict-transport-security: max-age=31536000; includeSubDomains; preload\r\n"
                                      "x-content-type-options: nosniff\r\n"
                                      "server: mock\r\n"
                                      "cf-ray: 0123456789abcdef-FRA\r\n";

static const char *MODEL_LIST =
    "{\"object\":\"list\",\"data\":["
    "{\"id\":\"up-n100-d0-s200\",\"object\":\"model\",\"created\":1763640000,\"owned_by\":\"mock\"},"
    "{\"id\":\"up-n100-d20-s200\",\"object\":\"model\",\"created\":1763640000,\"owned_by\":\"mock\"}]}\n";

// ---- buffers and sockets --------------------------------------------------------------------------------------------

static void reserve(buffer *b, size_t room) {
    if (b->capacity - b->length >= room) return;
    b->capacity = (b->length + room) * 2;
    b->bytes = realloc(b->bytes, b->capacity);
    if (!b->bytes) abort();
}

static void append(buffer *b, const char *bytes, size_t count) {
    reserve(b, count);
    memcpy(b->bytes + b->length, bytes, count);
    b->length += count;
}

static void drop_front(buffer *b, size_t count) {
    memmove(b->bytes, b->bytes + count, b->length - count);
    b->length -= count;
}

static void watch(connection *c, int operation) {
    struct epoll_event event = {.events = EPOLLIN | (c->awaits_room ? EPOLLOUT : 0), .data.ptr = c};
    epoll_ctl(epoll, operation, c->socket, &event);
}

static void await_room(connection *c, bool wanted) {
    if (c->awaits_room == wanted) return;
    c->awaits_room = wanted;
    watch(c, EPOLL_CTL_MOD);
}

static bool flush(connection *c) { // false: the connection is gone
    buffer *out = &c->out;
    while (out->taken < out->length) {
        ssize_t count = send(c->socket, out->bytes + out->taken, out->length - out->taken, MSG_NOSIGNAL);
        if (count < 0 && errno != EAGAIN) return false;
        if (count < 0) {
            await_room(c, true);
            return true;
        }
        out->taken += count;
    }
    out->taken = out->length = 0;
    await_room(c, false);
    return true;
}

// ---- timers ---------------------------------------------------------------------------------------------------------

static void unschedule(connection *c) {
    if (!c->link) return;
    *c->link = c->next;
    if (c->next) c->next->link = c->link;
    c->next = NULL;
    c->link = NULL;
    scheduled--;
}

static void schedule(connection *c) {
    int64_t tick = (c->due_ns + 999999) / 1000000;
    if (tick <= wheel_tick_ms) tick = wheel_tick_ms + 1;
    connection **slot = &wheel[tick % WHEEL_SLOTS];
    c->next = *slot;
    c->link = slot;
    if (c->next) c->next->link = &c->next;
    *slot = c;
    scheduled++;
}

static void close_connection(connection *c) {
    if (c->streaming) stats.aborted++;
    unschedule(c);
    close(c->socket);
    free(c->in.bytes);
    free(c->out.bytes);
    free(c);
}

// ---- answers --------------------------------------------------------------------------------------------------------

static void send_json(connection *c, const char *status, const char *headers, const char *body) {
    char head[2048];
    int length =
        snprintf(head, sizeof head, "HTTP/1.1 %s\r\ncontent-type: application/json\r\n%scontent-length: %zu\r\n\r\n",
                 status, headers, strlen(body));
    append(&c->out, head, length);
    append(&c->out, body, strlen(body));
}

static void send_answer(connection *c) {
    char body[3072];
    snprintf(
        body, sizeof body,
        "{\"id\":\"chatcmpl-bench0123456789abcdef\",\"object\":\"chat.completion\",\"created\":1763640000,"
        "\"model\":\"%s\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\","
        "\"content\":\"It is" ANSWER_MARK_FORMAT "%.540s\",\"refusal\":null,\"annotations\":[]},\"logprobs\":null,"
        "\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":211,\"completion_tokens\":137,\"total_tokens\":348,"
        "\"prompt_tokens_details\":{\"cached_tokens\":0,\"audio_tokens\":0},\"completion_tokens_details\":"
        "{\"reasoning_tokens\":0,\"audio_tokens\":0,\"accepted_prediction_tokens\":0,\"rejected_prediction_tokens\":0}}"
        ",\"service_tier\":\"default\",\"system_fingerprint\":\"fp_bench\"}",
        c->model, c->ticket, filler);
    send_json(c, "200 OK", PROVIDER_HEADERS, body);
    stats.answers++;
}

static void send_stats(connection *c) {
    char body[256];
    snprintf(body, sizeof body,
             "{\"answers\":%lu,\"streams\":%lu,\"chunks\":%lu,\"aborted\":%lu,\"connections\":%lu}\n", stats.answers,
             stats.streams, stats.chunks, stats.aborted, stats.connections);
    send_json(c, "200 OK", "", body);
}

static void append_http_chunk(connection *c, const char *bytes, size_t count) {
    char size[16];
    append(&c->out, size, snprintf(size, sizeof size, "%zx\r\n", count));
    append(&c->out, bytes, count);
    append(&c->out, "\r\n", 2);
}

static void send_stream_head(connection *c) {
    char head[2048];
    int length = snprintf(head, sizeof head,
                          "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n%s"
                          "transfer-encoding: chunked\r\n\r\n",
                          PROVIDER_HEADERS);
    append(&c->out, head, length);
}

static void send_chunk(connection *c, int number, int ticket) {
    char chunk[MAX_CHUNK_BYTES + 1024], tail[64];
    int tail_length =
        snprintf(tail, sizeof tail, "\"},\"finish_reason\":%s}]}\n\n", number == c->chunks - 1 ? "\"stop\"" : "null");
    int length = snprintf(
        chunk, sizeof chunk,
        "data: {\"id\":\"chatcmpl-bench01\",\"object\":\"chat.completion.chunk\",\"created\":1763640000,"
        "\"model\":\"%s\",\"choices\":[{\"index\":0,\"delta\":{%s\"content\":\"" CHUNK_MARK_FORMAT,
        c->model, number == 0 ? "\"role\":\"assistant\"," : "", (long long)now_ns(), number, c->chunks, ticket);
    int padding = c->chunk_bytes - length - tail_length;
    if (padding > 0) {
        memcpy(chunk + length, filler, padding);
        length += padding;
    }
    memcpy(chunk + length, tail, tail_length);
    append_http_chunk(c, chunk, length + tail_length);
    stats.chunks++;
}

static void send_next_chunk(connection *c) {
    int number = c->sent++;
    bool faulty = number == FAULTY_CHUNK;
    if (faulty && c->fault == LOSE_A_CHUNK) return;
    if (faulty && c->fault == REPEAT_A_CHUNK) send_chunk(c, number, c->ticket);
    if (c->fault == SWAP_TWO_CHUNKS && (faulty || number == FAULTY_CHUNK + 1)) number = 2 * FAULTY_CHUNK + 1 - number;
    send_chunk(c, number, faulty && c->fault == WRONG_TICKET ? c->ticket + 1 : c->ticket);
}

static void send_stream_end(connection *c) {
    static const char DONE[] = "data: [DONE]\n\n";
    char usage[1024];
    int length =
        snprintf(usage, sizeof usage,
                 "data: {\"id\":\"chatcmpl-bench01\",\"object\":\"chat.completion.chunk\",\"created\":1763640000,"
                 "\"model\":\"%s\",\"choices\":[],\"usage\":{\"prompt_tokens\":211,\"completion_tokens\":%d,"
                 "\"total_tokens\":%d}}\n\n",
                 c->model, c->chunks, c->chunks + 211);
    append_http_chunk(c, usage, length);
    append_http_chunk(c, DONE, sizeof DONE - 1);
    append(&c->out, "0\r\n\r\n", 5);
}

static bool finish_stream(connection *c) {
    if (c->fault != END_EARLY) send_stream_end(c);
    c->streaming = false;
    stats.streams++;
    return flush(c) && !c->close_after && c->fault != END_EARLY;
}

static bool advance_stream(connection *c) { // false: close the connection
    if (c->delay_ms == 0) {
        while (c->sent < c->chunks) {
            send_next_chunk(c);
            if (!c->awaits_room && !flush(c)) return false;
        }
        return finish_stream(c);
    }
    send_next_chunk(c);
    if (c->sent == c->chunks) return finish_stream(c);
    c->due_ns += c->delay_ms * 1000000LL;
    schedule(c);
    return flush(c);
}

// ---- requests -------------------------------------------------------------------------------------------------------

static char *find_header(char *head, size_t length, const char *name) {
    size_t name_length = strlen(name);
    for (char *line = head; (line = memmem(line, head + length - line, "\r\n", 2));) {
        line += 2;
        if (line + name_length >= head + length) return NULL;
        if (strncasecmp(line, name, name_length) || line[name_length] != ':') continue;
        line += name_length + 1;
        return line + strspn(line, " ");
    }
    return NULL;
}

// Returns the length of a whole chunked body, or 0 while it is incomplete; joins its parts at `joined` unless NULL.
static size_t read_chunked(const char *body, size_t available, char *joined, size_t *joined_length) {
    const char *at = body, *end = body + available;
    *joined_length = 0;
    for (;;) {
        const char *line_end = memmem(at, end - at, "\r\n", 2);
        if (!line_end) return 0;
        size_t size = strtoul(at, NULL, 16);
        at = line_end + 2;
        if (size + 2 > (size_t)(end - at)) return 0;
        if (joined) memmove(joined + *joined_length, at, size);
        *joined_length += size;
        at += size + 2;
        if (size == 0) return at - body;
    }
}

static bool read_request(connection *c, request *r) {
    char *blank = memmem(c->in.bytes, c->in.length, "\r\n\r\n", 4);
    if (!blank) return false;
    r->head = c->in.bytes;
    r->body = blank + 4;
    r->head_length = r->body - r->head;
    size_t available = c->in.length - r->head_length;
    char *coding = find_header(r->head, r->head_length, "transfer-encoding");
    if (coding && !strncasecmp(coding, "chunked", 7)) {
        size_t length = read_chunked(r->body, available, NULL, &r->body_length);
        if (!length) return false;
        read_chunked(r->body, available, r->body, &r->body_length);
        r->total = r->head_length + length;
        return true;
    }
    char *length = find_header(r->head, r->head_length, "content-length");
    r->body_length = length ? strtoul(length, NULL, 10) : 0;
    r->total = r->head_length + r->body_length;
    return available >= r->body_length;
}

static int knob(const char *model, char letter, int otherwise, int most) {
    for (const char *dash = model; (dash = strchr(dash, '-')); dash++) {
        if (dash[1] != letter || dash[2] < '0' || dash[2] > '9') continue;
        int value = atoi(dash + 2);
        return value < most ? value : most;
    }
    return otherwise;
}

static void read_model(connection *c, const request *r) {
    static const char FIELD[] = "\"model\"";
    size_t length = 0;
    char *at = memmem(r->body, r->body_length, FIELD, sizeof FIELD - 1), *end = r->body + r->body_length;
    char *quote = at ? memchr(at + sizeof FIELD - 1, '"', end - at - (sizeof FIELD - 1)) : NULL;
    for (char *name = quote + 1; quote && name < end && *name != '"' && length < sizeof c->model - 1; name++)
        c->model[length++] = *name;
    c->model[length] = 0;
    c->chunks = knob(c->model, 'n', 100, 999999);
    c->delay_ms = knob(c->model, 'd', 0, MAX_DELAY_MS);
    c->chunk_bytes = knob(c->model, 's', 200, MAX_CHUNK_BYTES);
    c->fault = knob(c->model, 'f', NO_FAULT, REPEAT_A_CHUNK);
}

static bool asks_for_stream(const request *r) {
    return memmem(r->body, r->body_length, "\"stream\":true", 13) ||
           memmem(r->body, r->body_length, "\"stream\": true", 14);
}

static bool answer_chat(connection *c, const request *r) {
    read_model(c, r);
    char *ticket = memmem(r->body, r->body_length, TICKET_PREFIX, sizeof TICKET_PREFIX - 1);
    c->ticket = ticket ? atoi(ticket + sizeof TICKET_PREFIX - 1) : 0;
    char *option = find_header(r->head, r->head_length, "connection");
    c->close_after = option && !strncasecmp(option, "close", 5);
    bool stream = asks_for_stream(r);
    drop_front(&c->in, r->total);
    if (!stream) {
        send_answer(c);
        return flush(c) && !c->close_after;
    }
    c->streaming = true;
    c->sent = 0;
    c->due_ns = now_ns();
    send_stream_head(c);
    return advance_stream(c);
}

static bool answer_other(connection *c, const request *r) {
    if (!strncmp(r->head, "GET /stats", 10)) send_stats(c);
    else if (!strncmp(r->head, "GET ", 4)) send_json(c, "200 OK", "", MODEL_LIST);
    else send_json(c, "404 Not Found", "", "{\"error\":{\"message\":\"not found\"}}");
    drop_front(&c->in, r->total);
    return flush(c);
}

static bool answer_requests(connection *c) { // false: close the connection
    request r;
    while (!c->streaming && c->in.length && read_request(c, &r)) {
        bool chat = !strncmp(r.head, "POST ", 5) && memmem(r.head, r.head_length, "/chat/completions", 17);
        if (!(chat ? answer_chat(c, &r) : answer_other(c, &r))) return false;
    }
    return true;
}

static bool receive(connection *c) { // false: the client has gone
    for (;;) {
        reserve(&c->in, 4096);
        size_t room = c->in.capacity - c->in.length;
        ssize_t count = recv(c->socket, c->in.bytes + c->in.length, room, 0);
        if (count <= 0) return count < 0 && errno == EAGAIN;
        c->in.length += count;
        if ((size_t)count < room) return true;
    }
}

// ---- the loop -------------------------------------------------------------------------------------------------------

static void accept_all(int listener) {
    int yes = 1;
    for (int socket; (socket = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0;) {
        setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
        connection *c = calloc(1, sizeof *c);
        if (!c) abort();
        c->socket = socket;
        watch(c, EPOLL_CTL_ADD);
        stats.connections++;
    }
}

static void serve(connection *c, uint32_t events) {
    bool alive = true;
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) alive = receive(c) && answer_requests(c);
    if (alive && (events & EPOLLOUT)) alive = flush(c);
    if (!alive) close_connection(c);
}

static void fire_timers(void) {
    int64_t now_ms = now_ns() / 1000000;
    if (!scheduled) wheel_tick_ms = now_ms;
    while (wheel_tick_ms < now_ms) {
        // Taken one by one from the slot: serving one connection may close it, but never touches another.
        connection **slot = &wheel[++wheel_tick_ms % WHEEL_SLOTS], *c;
        while ((c = *slot)) {
            unschedule(c);
            if (!advance_stream(c) || (!c->streaming && !answer_requests(c))) close_connection(c);
        }
    }
}

static int listen_on(int port) {
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), yes = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (bind(listener, (void *)&address, sizeof address) || listen(listener, 4096)) {
        perror("mock: listen");
        exit(1);
    }
    return listener;
}

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: mock PORT\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    for (size_t i = 0; i < sizeof filler; i++) filler[i] = "the quick brown fox jumps over the lazy dog and "[i % 48];
    int listener = listen_on(atoi(argv[1]));
    epoll = epoll_create1(0);
    struct epoll_event listening = {.events = EPOLLIN, .data.ptr = NULL}, events[EVENTS];
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &listening);
    wheel_tick_ms = now_ns() / 1000000;
    for (;;) {
        int count = epoll_wait(epoll, events, EVENTS, scheduled ? 1 : -1);
        for (int i = 0; i < count; i++) {
            if (events[i].data.ptr) serve(events[i].data.ptr, events[i].events);
            else accept_all(listener);
        }
        fire_timers();
    }
}
