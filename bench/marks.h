// What the mock writes into its answers and the load generator looks for.
//
// Every request carries a ticket in its last message, and every answer and every streamed chunk repeats it, so an
// answer that reaches the wrong client is noticed. A chunk also carries its send time (CLOCK_MONOTONIC: both programs
// run on one host), its number and the length of its stream, so loss, reordering and truncation are noticed. The marks
// stand inside the text that a model would have written: they survive a gateway that parses and renders the JSON anew.
#pragma once
#include <stdint.h>
#include <time.h>

#define TICKET_PREFIX "ticket-"
#define TICKET_DIGITS 9

// In a shape each run of '#' is one number.
#define CHUNK_MARK_FORMAT " t%019lldn%06dof%06dq%09d "
#define CHUNK_MARK_SHAPE " t###################n######of######q######### "
#define ANSWER_MARK_FORMAT " answer-q%09d "
#define ANSWER_MARK_SHAPE " answer-q######### "
#define STREAM_END_SHAPE "[DONE]"

enum chunk_mark_field { SENT_AT, CHUNK_NUMBER, STREAM_LENGTH, CHUNK_TICKET, CHUNK_MARK_FIELDS };

static inline int64_t now_ns(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}
