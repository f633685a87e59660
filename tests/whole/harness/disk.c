/* A disk with troubles. Preloaded into redtape (disk.rs builds it).
 *
 *   REDTAPE_TEST_DISK=<path>         a file that says what happens from now on:
 *     fine                  nothing
 *     stall <ms>            each sync of a segment takes so much longer
 *     sync-error            each sync of a segment fails with EIO
 *     write-full            each write to a segment fails with ENOSPC
 *     sync-error-nth <n>    the nth sync of the journal, in the life of the process, fails with EIO
 *     write-full-nth <n>    of the nth write to the journal half is written; the disk is full from then on
 *     torn-copy-error       once, of a write to a segment half is written; the sync of what is then set aside of it fails, once
 *     torn-cut-error        the same, but it is the sync of the segment after it was cut that fails
 *   REDTAPE_TEST_DISK_UNDER=<path>   the journal
 *   REDTAPE_TEST_DISK_SEEN=<path>    here stands what has been done, a letter for each failure
 *
 * A sync that fails takes what it should have brought to the disk with it, as Linux does when it drops the pages: what was
 * written since the last sync reads as zeros.
 *
 * Calls go to the kernel by syscall(2), so that nothing has to be looked up.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static long syncs, writes;
static int is_full;
/* What torn-*-error have done so far. */
static int is_torn, has_failed;
static ino_t cut;

/* Up to where files are synced. */
enum { FILES = 4096 };
static struct { ino_t inode; off_t synced; } files[FILES];

/* 3: set aside; 2: a segment, or its copy; 1: anything else of the journal; 0: not of interest. */
static int kind_of(int fd) {
    char link[64], path[4096];
    if (fd < 3) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n <= 0) return 0;
    path[n] = 0;
    if (strstr(path, "/segments/")) return 2;
    if (strstr(path, "/quarantine/")) return 3;
    const char *under = getenv("REDTAPE_TEST_DISK_UNDER");
    return under && strncmp(path, under, strlen(under)) == 0;
}

/* What the test wants; its number goes to `number`. */
static void wanted(char *what, size_t size, long *number) {
    const char *path = getenv("REDTAPE_TEST_DISK");
    what[0] = 0;
    *number = 0;
    int fd = path ? (int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0) return;
    ssize_t n = syscall(SYS_read, fd, what, size - 1);
    syscall(SYS_close, fd);
    what[n > 0 ? n : 0] = 0;
    char *space = strchr(what, ' ');
    if (space) {
        *number = atol(space + 1);
        *space = 0;
    }
}

static void seen(const char *what) {
    const char *path = getenv("REDTAPE_TEST_DISK_SEEN");
    int fd = path ? (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600) : -1;
    if (fd < 0) return;
    syscall(SYS_write, fd, what, strlen(what));
    syscall(SYS_close, fd);
}

/* Under the lock. Where a file is synced to; it is taken to be as it is found. */
static off_t *synced_of(int fd, off_t *size) {
    struct stat s;
    if (fstat(fd, &s) < 0 || !S_ISREG(s.st_mode)) return NULL;
    *size = s.st_size;
    for (int n = 0; n < FILES; n++) {
        if (files[n].inode == s.st_ino) return &files[n].synced;
        if (files[n].inode == 0) {
            files[n].inode = s.st_ino;
            files[n].synced = s.st_size;
            return &files[n].synced;
        }
    }
    return NULL;
}

static void drop_unsynced(int fd) {
    static const char zeros[4096];
    off_t size = 0, *synced = synced_of(fd, &size);
    for (off_t at = synced ? *synced : size; at < size;) {
        size_t part = (size_t)(size - at) < sizeof zeros ? (size_t)(size - at) : sizeof zeros;
        if (syscall(SYS_pwrite64, fd, zeros, part, at) < 0) return;
        at += (off_t)part;
    }
}

/* Under the lock. The sync of which torn-*-error is about. */
static int is_behind_the_tear(const char *what, int kind, int fd) {
    struct stat s;
    if (!is_torn || has_failed) return 0;
    if (!strcmp(what, "torn-copy-error")) return kind == 3;
    return !strcmp(what, "torn-cut-error") && kind == 2 && fstat(fd, &s) == 0 && s.st_ino == cut;
}

int ftruncate(int fd, off_t size) {
    struct stat s;
    pthread_mutex_lock(&lock);
    if (kind_of(fd) == 2 && fstat(fd, &s) == 0) cut = s.st_ino;
    pthread_mutex_unlock(&lock);
    return (int)syscall(SYS_ftruncate, fd, size);
}

int ftruncate64(int fd, off_t size) { return ftruncate(fd, size); }

static int sync_with(long call, int fd) {
    char what[64];
    long number;
    int kind = kind_of(fd);
    if (!kind) return (int)syscall(call, fd);
    wanted(what, sizeof what, &number);
    if (kind == 2 && !strcmp(what, "stall")) {
        struct timespec pause = {number / 1000, number % 1000 * 1000000};
        nanosleep(&pause, NULL);
    }
    pthread_mutex_lock(&lock);
    syncs++;
    int done;
    if ((kind == 2 && !strcmp(what, "sync-error")) || (!strcmp(what, "sync-error-nth") && syncs == number)) {
        drop_unsynced(fd);
        seen(kind == 2 ? "s" : "o");
        errno = EIO;
        done = -1;
    } else if (is_behind_the_tear(what, kind, fd)) {
        has_failed = 1;
        seen(kind == 2 ? "s" : "o");
        errno = EIO;
        done = -1;
    } else {
        done = (int)syscall(call, fd);
        off_t size, *synced = synced_of(fd, &size);
        if (synced) *synced = size;
    }
    int kept = errno;
    pthread_mutex_unlock(&lock);
    errno = kept;
    return done;
}

int fdatasync(int fd) { return sync_with(SYS_fdatasync, fd); }
int fsync(int fd) { return sync_with(SYS_fsync, fd); }

ssize_t write(int fd, const void *bytes, size_t size) {
    char what[64];
    long number;
    /* Sockets and logs are nobody's journal; the three standard ones are not even looked at. */
    int kind = fd > 2 && getenv("REDTAPE_TEST_DISK") ? kind_of(fd) : 0;
    if (!kind) return syscall(SYS_write, fd, bytes, size);
    wanted(what, sizeof what, &number);
    if (kind == 2 && !strcmp(what, "write-full")) {
        errno = ENOSPC;
        return -1;
    }
    pthread_mutex_lock(&lock);
    off_t before;
    synced_of(fd, &before);
    writes++;
    ssize_t n;
    int nth = !strcmp(what, "write-full-nth");
    if (kind == 2 && !strncmp(what, "torn-", 5) && !is_torn) {
        is_torn = 1;
        n = size > 1 ? syscall(SYS_write, fd, bytes, size / 2) : (errno = ENOSPC, -1);
    } else if (kind == 2 && !strncmp(what, "torn-", 5) && is_torn == 1) {
        is_torn = 2;
        seen("w");
        errno = ENOSPC;
        n = -1;
    } else if (nth && is_full) {
        errno = ENOSPC;
        n = -1;
    } else if (nth && writes >= number) {
        is_full = 1;
        seen(kind == 2 ? "w" : "o");
        n = size > 1 ? syscall(SYS_write, fd, bytes, size / 2) : (errno = ENOSPC, -1);
    } else {
        if (!nth) is_full = 0;
        n = syscall(SYS_write, fd, bytes, size);
    }
    int kept = errno;
    pthread_mutex_unlock(&lock);
    errno = kept;
    return n;
}
