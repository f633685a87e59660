/* The wall clock of a scratch server: says what the file named by REDTAPE_CLOCK_FILE says.
 *
 *   file: two little-endian 64-bit numbers
 *     [0]  the time, microseconds since 1970
 *     [1]  0: the clock stands still; else: CLOCK_MONOTONIC (microseconds) at which it started to run
 *
 * Without that variable, or when the file cannot be mapped, the clock is the real one; the restore
 * engine asks the server's TIME before it trusts it. Only the wall clock is replaced: CLOCK_MONOTONIC,
 * on which servers run their timers, stays real.
 *
 * Preloaded into whatever redis-server or valkey-server is found, so it needs no C library: system
 * calls are made directly and the environment is read from /proc. One build serves glibc and musl.
 *
 * Besides, the server is killed when the thread that started it dies, so that a killed restore leaves
 * no server behind. The restore may have been killed before that was arranged: it holds a lock on the
 * file `lock` beside the clock's as long as it lives, so a server that gets the lock ends at once.
 */
typedef long i64;
struct ts { i64 sec, nsec; };
struct tv { i64 sec, usec; };

#if defined(__x86_64__)
enum { NR_read = 0, NR_open_at = 257, NR_close = 3, NR_mmap = 9, NR_flock = 73, NR_prctl = 157, NR_clock_gettime = 228, NR_exit_group = 231 };
static i64 sys(i64 n, i64 a, i64 b, i64 c, i64 d, i64 e, i64 f) {
    i64 ret;
    register i64 r10 __asm__("r10") = d;
    register i64 r8 __asm__("r8") = e;
    register i64 r9 __asm__("r9") = f;
    __asm__ volatile("syscall" : "=a"(ret) : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return ret;
}
#elif defined(__aarch64__)
enum { NR_flock = 32, NR_read = 63, NR_open_at = 56, NR_close = 57, NR_mmap = 222, NR_prctl = 167, NR_clock_gettime = 113, NR_exit_group = 94 };
static i64 sys(i64 n, i64 a, i64 b, i64 c, i64 d, i64 e, i64 f) {
    register i64 x8 __asm__("x8") = n;
    register i64 x0 __asm__("x0") = a;
    register i64 x1 __asm__("x1") = b;
    register i64 x2 __asm__("x2") = c;
    register i64 x3 __asm__("x3") = d;
    register i64 x4 __asm__("x4") = e;
    register i64 x5 __asm__("x5") = f;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
    return x0;
}
#else
#error "clock.c: system calls of this architecture are not known here"
#endif

#define AT_FDCWD (-100)
#define O_CLOEXEC 02000000
#define PROT_READ 1
#define MAP_SHARED 1
#define PR_SET_PDEATHSIG 1
#define SIGKILL 9
#define LOCK_SH 1
#define LOCK_NB 4
#define REALTIME 0
#define MONOTONIC 1
#define REALTIME_COARSE 5
#define PATH_LIMIT 4096

static volatile const i64 *shown;
static char path[PATH_LIMIT];

/* Finds REDTAPE_CLOCK_FILE in /proc/self/environ; true when `path` holds its value. */
static int find_path(void) {
    static const char name[] = "REDTAPE_CLOCK_FILE=";
    static char chunk[4096];
    i64 fd = sys(NR_open_at, AT_FDCWD, (i64)"/proc/self/environ", O_CLOEXEC, 0, 0, 0);
    if (fd < 0) return 0;
    unsigned matched = 0, length = 0, skipping = 0, done = 0;
    i64 got;
    while (!done && (got = sys(NR_read, fd, (i64)chunk, sizeof chunk, 0, 0, 0)) > 0) {
        for (i64 i = 0; i < got && !done; i++) {
            char c = chunk[i];
            if (matched == sizeof name - 1) {
                if (length == PATH_LIMIT - 1) { length = 0; done = 1; }
                else if (c == 0) done = 1;
                else path[length++] = c;
            } else if (c == 0) { matched = 0; skipping = 0; }
            else if (!skipping && c == name[matched]) matched++;
            else skipping = 1;
        }
    }
    sys(NR_close, fd, 0, 0, 0, 0, 0);
    path[length] = 0;
    return length > 0;
}

/* True when nobody holds the lock beside the file at `path` any more. */
static int is_abandoned(void) {
    static const char name[] = "lock";
    static char lock[PATH_LIMIT + sizeof name];
    unsigned end = 0;
    for (unsigned i = 0; path[i]; i++) {
        lock[i] = path[i];
        if (path[i] == '/') end = i + 1;
    }
    for (unsigned i = 0; i < sizeof name; i++) lock[end + i] = name[i];
    i64 fd = sys(NR_open_at, AT_FDCWD, (i64)lock, O_CLOEXEC, 0, 0, 0);
    if (fd < 0) return 0;
    i64 got = sys(NR_flock, fd, LOCK_SH | LOCK_NB, 0, 0, 0, 0);
    sys(NR_close, fd, 0, 0, 0, 0, 0);
    return got == 0;
}

__attribute__((constructor)) static void begin(void) {
    if (!find_path()) return;
    /* First the signal, then the look: a restore that dies in between is seen by one of them. */
    sys(NR_prctl, PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0, 0);
    if (is_abandoned()) sys(NR_exit_group, 1, 0, 0, 0, 0, 0);
    i64 fd = sys(NR_open_at, AT_FDCWD, (i64)path, O_CLOEXEC, 0, 0, 0);
    if (fd < 0) return;
    i64 at = sys(NR_mmap, 0, 4096, PROT_READ, MAP_SHARED, fd, 0);
    sys(NR_close, fd, 0, 0, 0, 0, 0);
    if (at > 0 || at < -4096) shown = (volatile const i64 *)at;
}

static i64 monotonic_us(void) {
    struct ts now = {0, 0};
    sys(NR_clock_gettime, MONOTONIC, (i64)&now, 0, 0, 0, 0);
    return now.sec * 1000000 + now.nsec / 1000;
}

int clock_gettime(int clock, struct ts *out) {
    if (!shown || (clock != REALTIME && clock != REALTIME_COARSE))
        return sys(NR_clock_gettime, clock, (i64)out, 0, 0, 0, 0) < 0 ? -1 : 0;
    i64 us = shown[0], from = shown[1];
    if (from) us += monotonic_us() - from;
    out->sec = us / 1000000;
    out->nsec = us % 1000000 * 1000;
    return 0;
}

int gettimeofday(struct tv *out, void *zone) {
    struct ts now = {0, 0};
    (void)zone;
    clock_gettime(REALTIME, &now);
    if (out) { out->sec = now.sec; out->usec = now.nsec / 1000; }
    return 0;
}

i64 time(i64 *out) {
    struct ts now = {0, 0};
    clock_gettime(REALTIME, &now);
    if (out) *out = now.sec;
    return now.sec;
}
