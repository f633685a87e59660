/* A thread that cannot wait for its sockets any more. Preloaded into redtape (fault.rs builds it).
 *
 *   REDTAPE_TEST_FAULT=<path>   a file with the name of a thread: each epoll_wait of that thread fails with EBADF
 *
 * Calls go to the kernel by syscall(2), so that nothing has to be looked up.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static int is_meant(void) {
    char wanted[64] = "", name[64] = "";
    const char *path = getenv("REDTAPE_TEST_FAULT");
    int fd = path ? (int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0) return 0;
    ssize_t n = syscall(SYS_read, fd, wanted, sizeof wanted - 1);
    syscall(SYS_close, fd);
    return n > 0 && prctl(PR_GET_NAME, name) == 0 && strcmp(wanted, name) == 0;
}

int epoll_wait(int fd, struct epoll_event *events, int max, int timeout) {
    if (is_meant()) {
        errno = EBADF;
        return -1;
    }
    return (int)syscall(SYS_epoll_pwait, fd, events, max, timeout, NULL, 8);
}
