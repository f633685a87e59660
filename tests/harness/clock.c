/* A wall clock that says what a test wants. Preloaded into a server (clock.rs builds it).
 *
 *   REDTAPE_TEST_CLOCK=<microseconds since 1970>   the clock's start
 *   REDTAPE_TEST_CLOCK_RUNS=1                      it goes on from there; else it stands still
 *
 * Only the wall clock is replaced: CLOCK_MONOTONIC, on which servers run their timers, stays real (from
 * 6.2 on; and a blocked client's timeout is by the wall clock: while that stands still, it never comes).
 * Uses nothing of a particular C library version (the symbols it needs are found in
 * whichever one the server was started with), so that one build serves the servers of all suites.
 */
typedef long i64;
struct ts { i64 sec, nsec; };
struct tv { i64 sec, usec; };

extern long syscall(long, ...);
extern char *getenv(const char *);

#if defined(__x86_64__)
#define SYS_CLOCK_GETTIME 228
#elif defined(__aarch64__)
#define SYS_CLOCK_GETTIME 113
#else
#error "clock.c: the number of clock_gettime on this architecture is not known here"
#endif
#define REALTIME 0
#define MONOTONIC 1
#define REALTIME_COARSE 5

static i64 start_us = -1, runs_from_us = -1;

static i64 monotonic_us(void) {
    struct ts now;
    syscall(SYS_CLOCK_GETTIME, MONOTONIC, &now);
    return now.sec * 1000000 + now.nsec / 1000;
}

__attribute__((constructor)) static void read_environment(void) {
    const char *at = getenv("REDTAPE_TEST_CLOCK");
    if (!at) return;
    i64 us = 0;
    while (*at >= '0' && *at <= '9') us = us * 10 + (*at++ - '0');
    if (getenv("REDTAPE_TEST_CLOCK_RUNS")) runs_from_us = monotonic_us();
    start_us = us;
}

static i64 wall_us(void) {
    return runs_from_us < 0 ? start_us : start_us + (monotonic_us() - runs_from_us);
}

int clock_gettime(int clock, struct ts *out) {
    if (start_us < 0 || (clock != REALTIME && clock != REALTIME_COARSE))
        return (int)syscall(SYS_CLOCK_GETTIME, clock, out);
    i64 us = wall_us();
    out->sec = us / 1000000;
    out->nsec = us % 1000000 * 1000;
    return 0;
}

int gettimeofday(struct tv *out, void *zone) {
    (void)zone;
    struct ts now;
    clock_gettime(REALTIME, &now);
    if (out) { out->sec = now.sec; out->usec = now.nsec / 1000; }
    return 0;
}

i64 time(i64 *out) {
    struct ts now;
    clock_gettime(REALTIME, &now);
    if (out) *out = now.sec;
    return now.sec;
}
