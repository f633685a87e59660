/* A disk with troubles. Preloaded into redtape (disk.rs builds it).
 *
 *   REDTAPE_TEST_DISK=<path>   a file that says what happens to segments from now on:
 *     fine              nothing
 *     stall <ms>        each sync takes so much longer
 *     sync-error        a sync fails with EIO
 *     write-full        a write fails with ENOSPC
 *
 * Calls go to the kernel by syscall(2), so that nothing has to be looked up.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

static int is_segment(int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n <= 0) return 0;
    path[n] = 0;
    return strstr(path, "/segments/") != NULL;
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

static int sync_with(long call, int fd) {
    char what[64];
    long number;
    if (is_segment(fd)) {
        wanted(what, sizeof what, &number);
        if (!strcmp(what, "stall")) {
            struct timespec pause = {number / 1000, number % 1000 * 1000000};
            nanosleep(&pause, NULL);
        }
        if (!strcmp(what, "sync-error")) {
            errno = EIO;
            return -1;
        }
    }
    return (int)syscall(call, fd);
}

int fdatasync(int fd) { return sync_with(SYS_fdatasync, fd); }
int fsync(int fd) { return sync_with(SYS_fsync, fd); }

ssize_t write(int fd, const void *bytes, size_t size) {
    char what[64];
    long number;
    /* Sockets and logs are nobody's segment; the three standard ones are not even looked at. */
    if (fd > 2 && getenv("REDTAPE_TEST_DISK") && is_segment(fd)) {
        wanted(what, sizeof what, &number);
        if (!strcmp(what, "write-full")) {
            errno = ENOSPC;
            return -1;
        }
    }
    return syscall(SYS_write, fd, bytes, size);
}
