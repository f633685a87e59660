/* Writes down what a process does to its files, and what it tells its clients. Preloaded into redtape
 * (record.rs builds it and reads the log).
 *
 *   REDTAPE_TEST_RECORD=<path>         the log; appended to
 *   REDTAPE_TEST_RECORD_UNDER=<path>   only files below this folder are of interest
 *
 * One event after the other, in the order in which they took effect: every call that changes something, and every
 * send, is made and logged under one lock, over threads and processes. So what a client was told stands in the log
 * behind what had reached the disk by then, and before what reached it later.
 *
 * Some libraries make system calls without the C library, so the calls that matter are caught by seccomp where
 * that happens (renames).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

/* The sixth argument of a rename that comes from here; the kernel does not look at it. */
#define OURS 0x7265636f
#define LIBC_CALL __attribute__((visibility("default")))

struct event {
    uint32_t len; /* of everything, with this header */
    uint32_t kind;
    uint64_t at_ns; /* monotonic */
    uint64_t pid_fd;
    uint64_t number; /* inode */
    uint64_t offset;
    uint32_t path_len, other_len;
};

static int log_fd = -1;
static const char *under;
static size_t under_len;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void begin(void) {
    pthread_mutex_lock(&lock);
    while (syscall(SYS_flock, log_fd, LOCK_EX) < 0 && errno == EINTR) {}
}

static void end(void) {
    syscall(SYS_flock, log_fd, LOCK_UN);
    pthread_mutex_unlock(&lock);
}

/* Under the lock. Keeps errno. */
static void note(char kind, int fd, uint64_t number, uint64_t offset, const char *path, const char *other,
                 const void *bytes, size_t size) {
    int kept = errno;
    struct timespec now;
    syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &now);
    struct event event = {
        .kind = (uint32_t)kind,
        .at_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec,
        .pid_fd = (uint64_t)getpid() << 32 | (uint32_t)fd,
        .number = number,
        .offset = offset,
        .path_len = path ? (uint32_t)strlen(path) : 0,
        .other_len = other ? (uint32_t)strlen(other) : 0,
    };
    event.len = (uint32_t)(sizeof event + event.path_len + event.other_len + size);
    struct iovec parts[4] = {
        {&event, sizeof event},
        {(void *)path, event.path_len},
        {(void *)other, event.other_len},
        {(void *)bytes, size},
    };
    if (syscall(SYS_writev, log_fd, parts, 4) != (ssize_t)event.len) {
        static const char said[] = "record.c: the log cannot be written\n";
        syscall(SYS_write, 2, said, sizeof said - 1);
        _exit(97);
    }
    errno = kept;
}

static int is_under(const char *path) {
    return under && strncmp(path, under, under_len) == 0 && (path[under_len] == '/' || path[under_len] == 0);
}

/* The path of a descriptor below the folder; 0 if it is not one. */
static int path_of(int fd, char *path, size_t size) {
    char link[64];
    if (!under || fd < 3 || fd == log_fd) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    int kept = errno;
    ssize_t n = readlink(link, path, size - 1);
    errno = kept;
    if (n <= 0) return 0;
    path[n] = 0;
    return is_under(path);
}

static uint64_t inode(int fd) {
    struct stat s;
    return fstat(fd, &s) == 0 ? (uint64_t)s.st_ino : 0;
}

static int opened(int dir, const char *path, int flags, mode_t mode) {
    if (!under || !is_under(path) || !(flags & (O_CREAT | O_TRUNC)))
        return (int)syscall(SYS_openat, dir, path, flags, mode);
    begin();
    int was_there = syscall(SYS_faccessat, dir, path, F_OK) == 0;
    int fd = (int)syscall(SYS_openat, dir, path, flags, mode);
    if (fd >= 0 && !was_there) note('C', fd, inode(fd), 0, path, NULL, NULL, 0);
    if (fd >= 0 && was_there && (flags & O_TRUNC)) note('T', fd, inode(fd), 0, NULL, NULL, NULL, 0);
    end();
    return fd;
}

#define MODE                                 \
    mode_t mode = 0;                         \
    if (flags & (O_CREAT | __O_TMPFILE)) {   \
        va_list more;                        \
        va_start(more, flags);               \
        mode = va_arg(more, mode_t);         \
        va_end(more);                        \
    }
LIBC_CALL int open(const char *path, int flags, ...) { MODE return opened(AT_FDCWD, path, flags, mode); }
LIBC_CALL int open64(const char *path, int flags, ...) { MODE return opened(AT_FDCWD, path, flags, mode); }
LIBC_CALL int openat(int dir, const char *path, int flags, ...) { MODE return opened(dir, path, flags, mode); }
LIBC_CALL int openat64(int dir, const char *path, int flags, ...) { MODE return opened(dir, path, flags, mode); }

LIBC_CALL ssize_t write(int fd, const void *bytes, size_t size) {
    char path[4096];
    if (!path_of(fd, path, sizeof path)) return syscall(SYS_write, fd, bytes, size);
    begin();
    ssize_t n = syscall(SYS_write, fd, bytes, size);
    if (n > 0) {
        off_t at = syscall(SYS_lseek, fd, 0, SEEK_CUR);
        note('W', fd, inode(fd), (uint64_t)(at - n), NULL, NULL, bytes, (size_t)n);
    }
    end();
    return n;
}

static ssize_t written_at(int fd, const void *bytes, size_t size, off_t at) {
    char path[4096];
    if (!path_of(fd, path, sizeof path)) return syscall(SYS_pwrite64, fd, bytes, size, at);
    begin();
    ssize_t n = syscall(SYS_pwrite64, fd, bytes, size, at);
    if (n > 0) note('W', fd, inode(fd), (uint64_t)at, NULL, NULL, bytes, (size_t)n);
    end();
    return n;
}
LIBC_CALL ssize_t pwrite(int fd, const void *bytes, size_t size, off_t at) { return written_at(fd, bytes, size, at); }
LIBC_CALL ssize_t pwrite64(int fd, const void *bytes, size_t size, off_t at) { return written_at(fd, bytes, size, at); }

static int truncated(int fd, off_t len) {
    char path[4096];
    if (!path_of(fd, path, sizeof path)) return (int)syscall(SYS_ftruncate, fd, len);
    begin();
    int done = (int)syscall(SYS_ftruncate, fd, len);
    if (done == 0) note('T', fd, inode(fd), (uint64_t)len, NULL, NULL, NULL, 0);
    end();
    return done;
}
LIBC_CALL int ftruncate(int fd, off_t len) { return truncated(fd, len); }
LIBC_CALL int ftruncate64(int fd, off_t len) { return truncated(fd, len); }

static int synced(long call, int fd) {
    char path[4096];
    if (!path_of(fd, path, sizeof path)) return (int)syscall(call, fd);
    begin();
    int done = (int)syscall(call, fd);
    if (done == 0) note('F', fd, inode(fd), 0, path, NULL, NULL, 0);
    end();
    return done;
}
LIBC_CALL int fsync(int fd) { return synced(SYS_fsync, fd); }
LIBC_CALL int fdatasync(int fd) { return synced(SYS_fdatasync, fd); }

static int renamed(int from_dir, const char *from, int to_dir, const char *to, unsigned flags) {
    int recorded = under && is_under(from) && is_under(to);
    if (recorded) begin();
    int done = (int)syscall(SYS_renameat2, from_dir, from, to_dir, to, flags, OURS);
    if (recorded) {
        if (done == 0) note('R', 0, 0, 0, from, to, NULL, 0);
        end();
    }
    return done;
}
LIBC_CALL int rename(const char *from, const char *to) { return renamed(AT_FDCWD, from, AT_FDCWD, to, 0); }

static int unlinked(int dir, const char *path, int flags) {
    int recorded = under && is_under(path);
    if (recorded) begin();
    int done = (int)syscall(SYS_unlinkat, dir, path, flags);
    if (recorded) {
        if (done == 0) note('U', 0, 0, 0, path, NULL, NULL, 0);
        end();
    }
    return done;
}
LIBC_CALL int unlink(const char *path) { return unlinked(AT_FDCWD, path, 0); }
LIBC_CALL int unlinkat(int dir, const char *path, int flags) { return unlinked(dir, path, flags); }

LIBC_CALL int mkdir(const char *path, mode_t mode) {
    int recorded = under && is_under(path);
    if (recorded) begin();
    int done = (int)syscall(SYS_mkdirat, AT_FDCWD, path, mode);
    if (recorded) {
        if (done == 0) note('M', 0, 0, 0, path, NULL, NULL, 0);
        end();
    }
    return done;
}

/* What nobody here does: it would be missing in the log, so it ends the test. */
LIBC_CALL ssize_t copy_file_range(int in, off64_t *at_in, int out, off64_t *at_out, size_t size, unsigned flags) {
    char path[4096];
    if (path_of(out, path, sizeof path)) _exit(98);
    return syscall(SYS_copy_file_range, in, at_in, out, at_out, size, flags);
}
LIBC_CALL ssize_t sendfile64(int out, int in, off64_t *at, size_t size) {
    char path[4096];
    if (path_of(out, path, sizeof path)) _exit(98);
    return syscall(SYS_sendfile, out, in, at, size);
}

/* What leaves by a socket that does not wait (under the lock nobody may). */
static ssize_t sent(int fd, const struct iovec *parts, int count, ssize_t (*send_it)(void *), void *what) {
    if (!under) return send_it(what);
    size_t size = 0;
    for (int i = 0; i < count; i++) size += parts[i].iov_len;
    char *all = malloc(size ? size : 1);
    size_t at = 0;
    for (int i = 0; i < count; i++) {
        memcpy(all + at, parts[i].iov_base, parts[i].iov_len);
        at += parts[i].iov_len;
    }
    begin();
    ssize_t n = send_it(what);
    if (n > 0) note('S', fd, 0, 0, NULL, NULL, all, (size_t)n);
    end();
    int kept = errno;
    free(all);
    errno = kept;
    return n;
}

struct a_send { int fd; const void *bytes; size_t size; int flags; };
static ssize_t do_send(void *what) {
    struct a_send *s = what;
    return syscall(SYS_sendto, s->fd, s->bytes, s->size, s->flags, NULL, 0);
}
LIBC_CALL ssize_t send(int fd, const void *bytes, size_t size, int flags) {
    struct a_send what = {fd, bytes, size, flags};
    struct iovec part = {(void *)bytes, size};
    if (!under || (fcntl(fd, F_GETFL) & O_NONBLOCK) == 0) return do_send(&what);
    return sent(fd, &part, 1, do_send, &what);
}

struct a_writev { int fd; const struct iovec *parts; int count; };
static ssize_t do_writev(void *what) {
    struct a_writev *w = what;
    return syscall(SYS_writev, w->fd, w->parts, w->count);
}
LIBC_CALL ssize_t writev(int fd, const struct iovec *parts, int count) {
    char path[4096];
    struct a_writev what = {fd, parts, count};
    if (path_of(fd, path, sizeof path)) _exit(98);
    if (!under || fd < 3 || (fcntl(fd, F_GETFL) & O_NONBLOCK) == 0) return do_writev(&what);
    return sent(fd, parts, count, do_writev, &what);
}

struct a_sendmsg { int fd; const struct msghdr *message; int flags; };
static ssize_t do_sendmsg(void *what) {
    struct a_sendmsg *m = what;
    return syscall(SYS_sendmsg, m->fd, m->message, m->flags);
}
LIBC_CALL ssize_t sendmsg(int fd, const struct msghdr *message, int flags) {
    struct a_sendmsg what = {fd, message, flags};
    if (!under || (fcntl(fd, F_GETFL) & O_NONBLOCK) == 0) return do_sendmsg(&what);
    return sent(fd, message->msg_iov, (int)message->msg_iovlen, do_sendmsg, &what);
}

#if defined(__x86_64__)
#define THIS_ARCH AUDIT_ARCH_X86_64
#define ARGUMENT(context, n) ((context)->uc_mcontext.gregs[(int[]){REG_RDI, REG_RSI, REG_RDX, REG_R10, REG_R8, REG_R9}[n]])
#define RESULT(context) ((context)->uc_mcontext.gregs[REG_RAX])
#elif defined(__aarch64__)
#define THIS_ARCH AUDIT_ARCH_AARCH64
#define ARGUMENT(context, n) ((context)->uc_mcontext.regs[n])
#define RESULT(context) ((context)->uc_mcontext.regs[0])
#else
#error "record.c: seccomp on this architecture is not known here"
#endif

static void on_caught(int signal, siginfo_t *info, void *raw) {
    (void)signal;
    ucontext_t *context = raw;
    int kept = errno;
#define PATH_AT(n) ((const char *)ARGUMENT(context, n))
#define FD_AT(n) ((int)ARGUMENT(context, n))
    int done;
    switch (info->si_syscall) {
#ifdef SYS_rename
    case SYS_rename: done = renamed(AT_FDCWD, PATH_AT(0), AT_FDCWD, PATH_AT(1), 0); break;
#endif
#ifdef SYS_renameat
    case SYS_renameat: done = renamed(FD_AT(0), PATH_AT(1), FD_AT(2), PATH_AT(3), 0); break;
#endif
    default: done = renamed(FD_AT(0), PATH_AT(1), FD_AT(2), PATH_AT(3), (unsigned)ARGUMENT(context, 4)); break;
    }
    RESULT(context) = done < 0 ? -errno : done;
    errno = kept;
}

static void catch_renames(void) {
#ifndef SYS_rename
#define SYS_rename SYS_renameat2
#endif
#ifndef SYS_renameat
#define SYS_renameat SYS_renameat2
#endif
    struct sock_filter rules[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, THIS_ARCH, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_rename, 3, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_renameat, 2, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_renameat2, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[5])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, OURS, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof rules / sizeof *rules, rules};
    struct sigaction action = {.sa_sigaction = on_caught, .sa_flags = SA_SIGINFO};
    if (sigaction(SIGSYS, &action, NULL) < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0) {
        perror("record.c: system calls cannot be caught");
        _exit(96);
    }
}

__attribute__((constructor)) static void read_environment(void) {
    const char *path = getenv("REDTAPE_TEST_RECORD");
    const char *folder = getenv("REDTAPE_TEST_RECORD_UNDER");
    if (!path || !folder) return;
    log_fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (log_fd < 0) {
        perror(path);
        _exit(95);
    }
    under = folder;
    under_len = strlen(folder);
    catch_renames();
}
