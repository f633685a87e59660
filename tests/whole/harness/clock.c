/* A wall clock that says what a test wants. Preloaded into a server (clock.rs builds it).
 *
 *   REDTAPE_TEST_CLOCK=<microseconds since 1970>   the clock's start
 *   REDTAPE_TEST_CLOCK_RUNS=1                      it goes on from there; else it stands still
 *   REDTAPE_TEST_CLOCK_FILE=<path>                 the clock says what the 8 bytes of this file say now
 *   REDTAPE_TEST_NO_ENTROPY=1                      /dev/urandom gives zeros: hash seeds are the same everywhere
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
#define SYS_OPENAT 257
#elif defined(__aarch64__)
#define SYS_CLOCK_GETTIME 113
#define SYS_OPENAT 56
#else
#error "clock.c: the number of clock_gettime on this architecture is not known here"
#endif
#define REALTIME 0
#define MONOTONIC 1
#define REALTIME_COARSE 5

extern void *mmap(void *, unsigned long, int, int, int, long);
extern void *fdopen(int, const char *);
#define AT_FDCWD (-100)
#define PROT_READ 1
#define MAP_SHARED 1

static i64 start_us = -1, runs_from_us = -1;
static volatile i64 *from_file;
static int no_entropy;

static i64 monotonic_us(void) {
    struct ts now;
    syscall(SYS_CLOCK_GETTIME, MONOTONIC, &now);
    return now.sec * 1000000 + now.nsec / 1000;
}

__attribute__((constructor)) static void read_environment(void) {
    no_entropy = getenv("REDTAPE_TEST_NO_ENTROPY") != 0;
    const char *file = getenv("REDTAPE_TEST_CLOCK_FILE");
    if (file) {
        int fd = (int)syscall(SYS_OPENAT, AT_FDCWD, file, 0, 0);
        void *mapped = fd < 0 ? (void *)-1 : mmap(0, sizeof(i64), PROT_READ, MAP_SHARED, fd, 0);
        if (mapped != (void *)-1) from_file = mapped, start_us = 0;
    }
    const char *at = getenv("REDTAPE_TEST_CLOCK");
    if (!at) return;
    i64 us = 0;
    while (*at >= '0' && *at <= '9') us = us * 10 + (*at++ - '0');
    if (getenv("REDTAPE_TEST_CLOCK_RUNS")) runs_from_us = monotonic_us();
    start_us = us;
}

static i64 wall_us(void) {
    if (from_file) return *from_file;
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

/* Servers open the source of their hash seeds with fopen, and everything else by the same way: so all of it is
 * opened here. */
void *fopen(const char *path, const char *mode) {
    static const char urandom[] = "/dev/urandom";
    int n = 0;
    while (path[n] && path[n] == urandom[n]) n++;
    if (no_entropy && !path[n] && !urandom[n]) path = "/dev/zero";
    int plus = 0, flags = 0;
    for (const char *m = mode; *m; m++) {
        if (*m == '+') plus = 1;
        if (*m == 'e') flags |= 02000000; /* O_CLOEXEC */
        if (*m == 'x') flags |= 0200;     /* O_EXCL */
    }
    if (*mode == 'r') flags |= plus ? 2 : 0;
    else flags |= (plus ? 2 : 1) | 0100 | (*mode == 'a' ? 02000 : 01000); /* O_CREAT, O_APPEND or O_TRUNC */
    int fd = (int)syscall(SYS_OPENAT, AT_FDCWD, path, flags, 0666);
    return fd < 0 ? 0 : fdopen(fd, mode);
}

void *fopen64(const char *path, const char *mode) { return fopen(path, mode); }
