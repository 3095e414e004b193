/* A disk that fails on command: preloaded into the program under test, it lets chosen system calls fail while a
 * control file exists.
 *
 *   FAILING_DISK_UNDER    only calls on files under this folder are touched
 *   FAILING_DISK_CONTROL  the control file: while it exists, lines `sync ERRNO` or `write ERRNO` (numbers) say what
 *                         fails, with which error; `write` also covers truncating and allocating
 *
 * Compiled by the tests that use it: cc -shared -fPIC -o failing_disk.so failing_disk.c -ldl
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

/* The error that this kind of call on this file must fail with now; 0 when it must not. Keeps errno. */
static int fault(const char *kind, int fd) {
    const char *under = getenv("FAILING_DISK_UNDER"), *control = getenv("FAILING_DISK_CONTROL");
    int kept = errno, found = 0, number;
    char link[64], path[4096], name[16];
    if (!under || !control || access(control, F_OK) != 0) {
        errno = kept;
        return 0;
    }
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length > 0) {
        path[length] = 0;
        if (strncmp(path, under, strlen(under)) == 0) {
            FILE *lines = fopen(control, "re");
            while (lines && fscanf(lines, "%15s %d", name, &number) == 2)
                if (strcmp(name, kind) == 0) found = number;
            if (lines) fclose(lines);
        }
    }
    errno = kept;
    return found;
}

#define REAL(name) ((typeof(&name))dlsym(RTLD_NEXT, #name))
#define FAILING(kind, type, name, arguments, values, fd)                                                              \
    type name arguments {                                                                                             \
        int error = fault(kind, fd);                                                                                  \
        if (error) {                                                                                                  \
            errno = error;                                                                                            \
            return -1;                                                                                                \
        }                                                                                                             \
        return REAL(name) values;                                                                                     \
    }

FAILING("sync", int, fsync, (int fd), (fd), fd)
FAILING("sync", int, fdatasync, (int fd), (fd), fd)
FAILING("write", ssize_t, write, (int fd, const void *data, size_t size), (fd, data, size), fd)
FAILING("write", ssize_t, writev, (int fd, const struct iovec *parts, int count), (fd, parts, count), fd)
FAILING("write", ssize_t, pwrite, (int fd, const void *data, size_t size, off_t at), (fd, data, size, at), fd)
FAILING("write", ssize_t, pwrite64, (int fd, const void *data, size_t size, off64_t at), (fd, data, size, at), fd)
FAILING("write", int, ftruncate, (int fd, off_t size), (fd, size), fd)
FAILING("write", int, ftruncate64, (int fd, off64_t size), (fd, size), fd)
FAILING("write", int, fallocate, (int fd, int mode, off_t at, off_t size), (fd, mode, at, size), fd)
FAILING("write", int, fallocate64, (int fd, int mode, off64_t at, off64_t size), (fd, mode, at, size), fd)
