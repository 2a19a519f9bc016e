// A closed-loop load generator for OpenAI-compatible gateways that checks every mark of the mock.
//
//   loadgen requests -p PORT -c CONNECTIONS -t SECONDS …    each connection asks again as soon as it is answered
//   loadgen streams  -p PORT -c STREAMS -t SECONDS …        each connection opens its next stream when one is complete
//
//   -m model   -k key   -P path   -b bytes of the request body   -H header line (repeatable)
//   -w seconds of warm-up before the window   -R seconds over which connections start
//   -D seconds to wait after the window for what is still open
//
// A window lasts SECONDS, and longer for a target so slow that not every connection was answered twice in it: a part of
// a turn says nothing about the cost of a request.
//
// Figures come from the window alone, integrity from first request to last: after the window nothing new is asked, and
// what is open may finish. Prints a line "window opens", a line "window closes" and the result as one line of JSON.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <math.h>
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

enum { EVENTS = 512, READ_BYTES = 65536, HEAD_BYTES = 16384, STREAM_MOST = 4096 };
enum { REFUSAL_PAUSE_US = 200, LONGEST_WINDOWS = 5 };

// ---- histogram: 64 steps per power of two, so a quantile is exact to 1.6 % ------------------------------------------

enum { STEPS = 64, STEP_BITS = 6, BUCKETS = 60 * STEPS };

typedef struct {
    uint64_t count, buckets[BUCKETS];
    int64_t most;
} histogram;

static int bucket_of(int64_t value) {
    if (value < STEPS) return value < 0 ? 0 : value;
    int power = 63 - __builtin_clzll(value);
    return (power - STEP_BITS + 1) * STEPS + ((value >> (power - STEP_BITS)) & (STEPS - 1));
}

static int64_t value_of(int bucket) {
    if (bucket < STEPS) return bucket;
    int power = bucket / STEPS + STEP_BITS - 1;
    return (1LL << power) + ((int64_t)(bucket % STEPS) << (power - STEP_BITS));
}

static void record(histogram *h, int64_t value) {
    h->count++;
    h->buckets[bucket_of(value)]++;
    if (value > h->most) h->most = value;
}

static double quantile_us(const histogram *h, double quantile) {
    uint64_t wanted = ceil(quantile * h->count), seen = 0;
    for (int i = 0; i < BUCKETS && h->count; i++) {
        seen += h->buckets[i];
        if (seen >= wanted) return value_of(i) / 1e3;
    }
    return 0;
}

static void print_histogram(const char *name, const histogram *h) {
    printf(",\"%s\":{\"count\":%lu,\"p50\":%.1f,\"p90\":%.1f,\"p99\":%.1f,\"max\":%.1f}", name, h->count,
           quantile_us(h, .5), quantile_us(h, .9), quantile_us(h, .99), h->most / 1e3);
}

// ---- marks: found wherever the network cuts the text ----------------------------------------------------------------

typedef struct {
    const char *shape;
    int position, fields;
    int64_t numbers[CHUNK_MARK_FIELDS];
} matcher;

static void await(matcher *m, int position) {
    m->position = position;
    m->fields = 0;
}

static void await_shape(matcher *m, const char *shape) {
    m->shape = shape;
    await(m, 0);
}

// No shape contains its own first byte where a mismatch could begin a new match, so a mismatch never has to look back.
static bool accept_byte(matcher *m, char byte) {
    char wanted = m->shape[m->position];
    bool digit = byte >= '0' && byte <= '9';
    if (wanted == '#' ? !digit : byte != wanted) {
        await(m, byte == m->shape[0]);
        return false;
    }
    if (wanted == '#') {
        if (m->shape[m->position - 1] != '#') m->numbers[m->fields++] = 0;
        int64_t *number = &m->numbers[m->fields - 1];
        *number = *number * 10 + byte - '0';
    }
    return m->shape[++m->position] == 0;
}

// Returns the byte behind the next mark, or NULL when the text ends first.
static const char *find_mark(matcher *m, const char *at, const char *end) {
    while (at < end) {
        if (m->position == 0 && !(at = memchr(at, m->shape[0], end - at))) return NULL;
        if (!accept_byte(m, *at++)) continue;
        await(m, 0);
        return at;
    }
    return NULL;
}

// ---- state ----------------------------------------------------------------------------------------------------------

enum phase { IDLE, CONNECTING, WRITING, READING };
enum framing { BY_LENGTH, BY_CHUNKS, BY_CLOSE };
enum chunk_state { SIZE, SIZE_REST, DATA, DATA_END, TRAILER };

typedef struct {
    int socket, ticket;
    enum phase phase;
    char *request;
    size_t written;
    int64_t started_ns;

    char head[HEAD_BYTES];
    size_t head_length;
    bool in_body, close_after;
    int status;
    enum framing framing;
    enum chunk_state chunk_state;
    int64_t left;

    matcher mark, end;
    bool answered, ended;
    int distinct, highest, stream_length;
    uint64_t seen[STREAM_MOST / 64];
} connection;

static struct {
    bool streams;
    int port, connections, body_bytes;
    double seconds, warm_up, ramp, drain;
    const char *model, *key, *path;
    char headers[4096];
} options = {.port = 8100,
             .connections = 1,
             .body_bytes = 1024,
             .seconds = 5,
             .warm_up = 1,
             .ramp = 0,
             .drain = 10,
             .model = "bench-fast",
             .key = "sk-bench",
             .path = "/v1/chat/completions"};

static struct {
    uint64_t done, chunks;                           // inside the window
    uint64_t failed, bad_status, bad_answer, broken; // from here on: the whole run
    uint64_t complete, incomplete, lost, reordered, repeated, crossed, unfinished;
} counts;

static histogram latency, first_token, relay;
static int epoll, busy;
static int64_t begun_ns, opened_ns, closed_ns; // 0: not yet
static connection *connections;
static char *request_template, last_error[256];
static size_t request_length, ticket_offset;
static struct sockaddr_in target;

static bool in_window(void) {
    return opened_ns && !closed_ns;
}

// ---- what a request looks like --------------------------------------------------------------------------------------

static size_t write_body(char *body) {
    static const char SENTENCE[] = "You are a careful assistant; answer briefly, cite the file. ";
    enum { REST_OF_BODY = 440 };
    int prompt_length = options.body_bytes > REST_OF_BODY + 16 ? options.body_bytes - REST_OF_BODY : 16;
    char *prompt = malloc(prompt_length + 1);
    if (!prompt) abort();
    for (int i = 0; i < prompt_length; i++) prompt[i] = SENTENCE[i % (sizeof SENTENCE - 1)];
    prompt[prompt_length] = 0;
    int length = sprintf(body,
                         "{\"model\":\"%s\",\"messages\":[{\"role\":\"system\",\"content\":\"%s\"},"
                         "{\"role\":\"user\",\"content\":\"What is the capital of France?\"},"
                         "{\"role\":\"assistant\",\"content\":\"Paris.\"},{\"role\":\"user\",\"content\":"
                         "\"And of Italy? Answer in one word, say why \\\"Rome\\\" matters. " TICKET_PREFIX "%0*d\"}],"
                         "\"temperature\":0.7,\"max_tokens\":512,\"top_p\":1,%s\"user\":\"u-42\"}",
                         options.model, prompt, TICKET_DIGITS, 0,
                         options.streams ? "\"stream\":true,\"stream_options\":{\"include_usage\":true}," : "");
    free(prompt);
    return length;
}

static void build_request(void) {
    char *body = malloc(options.body_bytes + 4096);
    request_template = malloc(options.body_bytes + 16384);
    if (!body || !request_template) abort();
    size_t body_length = write_body(body);
    // The headers that OpenAI's own Python client sends.
    int head_length = sprintf(request_template,
                              "POST %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAccept-Encoding: identity\r\n%s"
                              "Accept: application/json\r\nContent-Type: application/json\r\n"
                              "User-Agent: OpenAI/Python 2.8.0\r\nX-Stainless-Lang: python\r\n"
                              "X-Stainless-Package-Version: 2.8.0\r\nX-Stainless-OS: Linux\r\nX-Stainless-Arch: x64\r\n"
                              "X-Stainless-Runtime: CPython\r\nX-Stainless-Runtime-Version: 3.11.7\r\n"
                              "Authorization: Bearer %s\r\nX-Stainless-Async: false\r\nx-stainless-retry-count: 0\r\n"
                              "x-stainless-read-timeout: 600\r\nContent-Length: %zu\r\n\r\n",
                              options.path, options.port, options.headers, options.key, body_length);
    memcpy(request_template + head_length, body, body_length + 1);
    request_length = head_length + body_length;
    ticket_offset = strstr(request_template + head_length, TICKET_PREFIX) - request_template + sizeof TICKET_PREFIX - 1;
    free(body);
}

static void put_ticket(connection *c) {
    static int issued;
    char digits[16];
    c->ticket = ++issued;
    snprintf(digits, sizeof digits, "%0*d", TICKET_DIGITS, c->ticket);
    memcpy(c->request + ticket_offset, digits, TICKET_DIGITS);
}

// ---- one exchange ---------------------------------------------------------------------------------------------------

static void finish(connection *c, bool good);

static void watch(connection *c, int operation, bool for_writing) {
    struct epoll_event event = {.events = EPOLLIN | (for_writing ? EPOLLOUT : 0), .data.ptr = c};
    epoll_ctl(epoll, operation, c->socket, &event);
}

static void hang_up(connection *c) {
    if (c->socket >= 0) close(c->socket);
    c->socket = -1;
}

static void break_off(connection *c, const char *reason) {
    counts.broken++;
    snprintf(last_error, sizeof last_error, "%s", reason);
    hang_up(c);
    finish(c, false);
}

static void send_request(connection *c) {
    while (c->written < request_length) {
        ssize_t count = send(c->socket, c->request + c->written, request_length - c->written, MSG_NOSIGNAL);
        if (count < 0 && errno == EAGAIN) {
            if (c->phase != WRITING) watch(c, EPOLL_CTL_MOD, true);
            c->phase = WRITING;
            return;
        }
        if (count < 0) {
            break_off(c, "connection closed while the request was sent");
            return;
        }
        c->written += count;
    }
    if (c->phase != READING) watch(c, EPOLL_CTL_MOD, false);
    c->phase = READING;
}

static void dial(connection *c) {
    int yes = 1;
    c->socket = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    setsockopt(c->socket, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    if (connect(c->socket, (void *)&target, sizeof target) && errno != EINPROGRESS) {
        perror("loadgen: connect");
        exit(1);
    }
    c->phase = CONNECTING;
    watch(c, EPOLL_CTL_ADD, true);
}

static void begin(connection *c, int64_t now) {
    c->started_ns = now;
    c->written = c->head_length = 0;
    c->in_body = c->close_after = c->answered = c->ended = false;
    c->framing = BY_CLOSE;
    c->chunk_state = SIZE;
    c->left = 0;
    c->distinct = c->stream_length = 0;
    c->highest = -1;
    memset(c->seen, 0, sizeof c->seen);
    await_shape(&c->mark, options.streams ? CHUNK_MARK_SHAPE : ANSWER_MARK_SHAPE);
    await_shape(&c->end, STREAM_END_SHAPE);
    put_ticket(c);
    busy++;
    if (c->socket < 0) dial(c);
    else {
        c->phase = READING;
        send_request(c);
    }
}

static void note_error(connection *c, const char *text, size_t length) {
    snprintf(last_error, sizeof last_error, "status %d: %.*s", c->status, (int)(length < 200 ? length : 200), text);
    for (char *at = last_error; *at; at++)
        if (*at == '"' || *at == '\\' || (unsigned char)*at < ' ') *at = ' ';
}

static void judge_stream(connection *c) {
    int missing = c->stream_length - c->distinct;
    counts.lost += missing;
    if (!c->ended) counts.incomplete++;
    else if (!missing) counts.complete++;
}

static bool judge(connection *c) {
    if (c->status != 200) {
        counts.bad_status++;
        return false;
    }
    if (options.streams) judge_stream(c);
    bool good = c->answered && (!options.streams || c->ended);
    if (!good) counts.bad_answer++;
    return good;
}

static void finish(connection *c, bool good) {
    int64_t now = now_ns();
    c->phase = IDLE;
    busy--;
    if (!good) counts.failed++;
    else if (in_window()) {
        counts.done++;
        record(&latency, now - c->started_ns);
    }
    if (closed_ns) return;
    // A target that refuses everything must not turn the generator into a busy loop.
    if (!good) usleep(REFUSAL_PAUSE_US);
    begin(c, now);
}

// ---- reading --------------------------------------------------------------------------------------------------------

static void note_chunk(connection *c, int64_t now) {
    const int64_t *mark = c->mark.numbers;
    if (mark[CHUNK_TICKET] != c->ticket || mark[CHUNK_NUMBER] >= STREAM_MOST) {
        counts.crossed++;
        return;
    }
    int number = mark[CHUNK_NUMBER];
    uint64_t bit = 1ULL << (number % 64), *word = &c->seen[number / 64];
    if (*word & bit) counts.repeated++;
    else c->distinct++;
    if (number < c->highest || c->ended) counts.reordered++;
    if (number > c->highest) c->highest = number;
    *word |= bit;
    c->stream_length = mark[STREAM_LENGTH];
    if (in_window()) {
        counts.chunks++;
        record(&relay, now - mark[SENT_AT]);
        if (!c->answered) record(&first_token, now - c->started_ns);
    }
    c->answered = true;
}

static void read_text(connection *c, const char *text, size_t length, int64_t now) {
    const char *end = text + length, *at = text;
    if (c->status != 200) {
        note_error(c, text, length);
        return;
    }
    if (!options.streams) {
        while ((at = find_mark(&c->mark, at, end))) {
            if (c->mark.numbers[0] == c->ticket) c->answered = true;
            else counts.crossed++;
        }
        return;
    }
    while ((at = find_mark(&c->mark, at, end))) note_chunk(c, now);
    if (find_mark(&c->end, text, end)) c->ended = true;
}

static void read_head(connection *c) {
    c->status = atoi(c->head + 9);
    for (char *line = c->head; (line = strstr(line, "\r\n"));) {
        line += 2;
        if (!strncasecmp(line, "content-length:", 15)) {
            c->framing = BY_LENGTH;
            c->left = atoll(line + 15);
        } else if (!strncasecmp(line, "transfer-encoding:", 18) && strcasestr(line + 18, "chunked"))
            c->framing = BY_CHUNKS;
        else if (!strncasecmp(line, "connection:", 11) && !strncasecmp(line + 11 + strspn(line + 11, " "), "close", 5))
            c->close_after = true;
    }
}

// Returns how many bytes belong to the head.
static size_t collect_head(connection *c, const char *bytes, size_t count) {
    size_t before = c->head_length, room = sizeof c->head - 1 - before;
    size_t taken = count < room ? count : room;
    memcpy(c->head + before, bytes, taken);
    c->head_length += taken;
    c->head[c->head_length] = 0;
    char *blank = strstr(c->head, "\r\n\r\n");
    if (!blank) return taken;
    blank[2] = 0;
    c->in_body = true;
    read_head(c);
    return blank + 4 - c->head - before;
}

static int hex_digit(char byte) {
    if (byte >= '0' && byte <= '9') return byte - '0';
    byte |= 0x20;
    return byte >= 'a' && byte <= 'f' ? byte - 'a' + 10 : -1;
}

static bool read_chunks(connection *c, const char *at, size_t count, int64_t now) { // true: the body is complete
    const char *end = at + count;
    while (at < end) {
        if (c->chunk_state == DATA) {
            size_t take = end - at < c->left ? end - at : c->left;
            read_text(c, at, take, now);
            at += take;
            c->left -= take;
            if (!c->left) c->chunk_state = DATA_END;
            continue;
        }
        char byte = *at++;
        if (c->chunk_state == SIZE && hex_digit(byte) >= 0) c->left = c->left * 16 + hex_digit(byte);
        else if (c->chunk_state == SIZE && byte == ';') c->chunk_state = SIZE_REST;
        else if (byte == '\n' && c->chunk_state == TRAILER) return true;
        else if (byte == '\n' && c->chunk_state == DATA_END) c->chunk_state = SIZE;
        else if (byte == '\n') c->chunk_state = c->left ? DATA : TRAILER;
    }
    return false;
}

static bool read_answer(connection *c, const char *bytes, size_t count, int64_t now) { // true: the answer is complete
    if (!c->in_body) {
        size_t taken = collect_head(c, bytes, count);
        if (!c->in_body) return false;
        bytes += taken;
        count -= taken;
    }
    if (c->framing == BY_CHUNKS) return read_chunks(c, bytes, count, now);
    if (c->framing == BY_LENGTH && (int64_t)count > c->left) count = c->left;
    read_text(c, bytes, count, now);
    c->left -= count;
    return c->framing == BY_LENGTH && c->left == 0;
}

static void closed_by_target(connection *c) {
    hang_up(c);
    if (c->phase == IDLE) return;
    if (c->in_body && c->framing == BY_CLOSE) {
        finish(c, judge(c));
        return;
    }
    if (options.streams && c->in_body) judge_stream(c);
    break_off(c, "connection closed before the answer was complete");
}

static void receive(connection *c) {
    static char bytes[READ_BYTES];
    for (;;) {
        ssize_t count = recv(c->socket, bytes, sizeof bytes, 0);
        if (count < 0 && errno == EAGAIN) return;
        if (count <= 0) {
            closed_by_target(c);
            return;
        }
        if (c->phase != IDLE && read_answer(c, bytes, count, now_ns())) {
            bool good = judge(c);
            if (c->close_after) hang_up(c);
            finish(c, good);
            return;
        }
        if (count < (ssize_t)sizeof bytes) return;
    }
}

// ---- the run --------------------------------------------------------------------------------------------------------

static void serve(connection *c, uint32_t events) {
    if (c->socket < 0) return;
    if (c->phase == CONNECTING && (events & (EPOLLOUT | EPOLLERR | EPOLLHUP))) {
        int error = 0;
        socklen_t size = sizeof error;
        getsockopt(c->socket, SOL_SOCKET, SO_ERROR, &error, &size);
        if (error) break_off(c, strerror(error));
        else send_request(c);
        return;
    }
    if (c->phase == WRITING && (events & EPOLLOUT)) send_request(c);
    if (c->socket >= 0 && (events & (EPOLLIN | EPOLLHUP | EPOLLERR))) receive(c);
}

static int start_due(int started, int64_t now) {
    while (started < options.connections && !closed_ns &&
           now >= begun_ns + (int64_t)(options.ramp * 1e9 * started / options.connections))
        begin(&connections[started++], now);
    return started;
}

static void announce(const char *event, int64_t *moment, int64_t now) {
    *moment = now;
    printf("%s\n", event);
    fflush(stdout);
}

static bool window_is_over(int64_t now) {
    double lasted = (now - opened_ns) / 1e9;
    bool enough = options.streams || counts.done >= 2 * (uint64_t)options.connections;
    return lasted >= options.seconds * (enough ? 1 : LONGEST_WINDOWS);
}

static bool is_over(int64_t now) {
    return closed_ns && (!busy || now >= closed_ns + options.drain * 1e9);
}

static void run(void) {
    struct epoll_event events[EVENTS];
    int started = 0;
    for (int64_t now = begun_ns = now_ns(); !is_over(now); now = now_ns()) {
        if (!opened_ns && now >= begun_ns + options.warm_up * 1e9) announce("window opens", &opened_ns, now);
        if (in_window() && window_is_over(now)) announce("window closes", &closed_ns, now);
        started = start_due(started, now);
        int count = epoll_wait(epoll, events, EVENTS, 1);
        for (int i = 0; i < count; i++) serve(events[i].data.ptr, events[i].events);
    }
}

static void print_result(void) {
    printf("{\"mode\":\"%s\",\"connections\":%d,\"seconds\":%.3f,\"request_bytes\":%zu,\"done\":%lu,\"chunks\":%lu",
           options.streams ? "streams" : "requests", options.connections, (closed_ns - opened_ns) / 1e9, request_length,
           counts.done, counts.chunks);
    printf(",\"failed\":%lu,\"bad_status\":%lu,\"bad_answer\":%lu,\"broken\":%lu,\"crossed\":%lu", counts.failed,
           counts.bad_status, counts.bad_answer, counts.broken, counts.crossed);
    printf(",\"complete\":%lu,\"incomplete\":%lu,\"lost\":%lu,\"reordered\":%lu,\"repeated\":%lu,\"unfinished\":%lu",
           counts.complete, counts.incomplete, counts.lost, counts.reordered, counts.repeated, counts.unfinished);
    printf(",\"last_error\":\"%s\"", last_error);
    print_histogram("latency_us", &latency);
    if (options.streams) {
        print_histogram("first_token_us", &first_token);
        print_histogram("relay_us", &relay);
    }
    printf("}\n");
}

static int usage(void) {
    fprintf(stderr, "usage: loadgen requests|streams -p PORT -c CONNECTIONS -t SECONDS\n"
                    "               [-w WARM_UP] [-R RAMP] [-D DRAIN] [-m MODEL] [-k KEY] [-P PATH] [-b BODY_BYTES] "
                    "[-H HEADER]…\n");
    return 2;
}

static bool add_header(const char *line) {
    size_t length = strlen(options.headers), room = sizeof options.headers - length;
    return (size_t)snprintf(options.headers + length, room, "%s\r\n", line) < room;
}

static bool read_options(int argc, char **argv) {
    if (argc < 2 || (strcmp(argv[1], "requests") && strcmp(argv[1], "streams"))) return false;
    options.streams = !strcmp(argv[1], "streams");
    optind = 2;
    for (int option; (option = getopt(argc, argv, "p:c:t:w:R:D:m:k:P:b:H:")) > 0;) {
        switch (option) {
        case 'p': options.port = atoi(optarg); break;
        case 'c': options.connections = atoi(optarg); break;
        case 't': options.seconds = atof(optarg); break;
        case 'w': options.warm_up = atof(optarg); break;
        case 'R': options.ramp = atof(optarg); break;
        case 'D': options.drain = atof(optarg); break;
        case 'm': options.model = optarg; break;
        case 'k': options.key = optarg; break;
        case 'P': options.path = optarg; break;
        case 'b': options.body_bytes = atoi(optarg); break;
        case 'H':
            if (!add_header(optarg)) return false;
            break;
        default: return false;
        }
    }
    return optind == argc && options.connections > 0;
}

static void prepare_connections(void) {
    connections = calloc(options.connections, sizeof *connections);
    for (int i = 0; i < options.connections; i++) {
        connections[i].socket = -1;
        connections[i].request = malloc(request_length);
        if (!connections[i].request) abort();
        memcpy(connections[i].request, request_template, request_length);
    }
}

int main(int argc, char **argv) {
    if (!read_options(argc, argv)) return usage();
    signal(SIGPIPE, SIG_IGN);
    target = (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons(options.port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    build_request();
    prepare_connections();
    epoll = epoll_create1(0);
    run();
    counts.unfinished = busy;
    print_result();
    return 0;
}
