/* Records every change of files below $RECORD_ROOT into $RECORD_LOG, for a test that loses what was not synced.
 *
 * One record: a line "operation number offset length path[ path]\n", then length bytes of data. "number" identifies the
 * open file by its inode. Preload with LD_PRELOAD. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static int log_fd = -1;
static const char *root = NULL;
static pthread_mutex_t guard = PTHREAD_MUTEX_INITIALIZER;

static void start(void) {
    if (log_fd >= 0) return;
    root = getenv("RECORD_ROOT");
    const char *path = getenv("RECORD_LOG");
    if (root == NULL || path == NULL) return;
    log_fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static int below(const char *path) { return root != NULL && strncmp(path, root, strlen(root)) == 0; }

static int where(int fd, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return below(path);
}

static void put(const char *operation, unsigned long number, long offset, const void *data, size_t length,
                const char *path, const char *other) {
    char head[2 * PATH_MAX + 128];
    int size = snprintf(head, sizeof head, "%s %lu %ld %zu %s%s%s\n", operation, number, offset, length, path,
                        other == NULL ? "" : " ", other == NULL ? "" : other);
    struct iovec parts[2] = {{head, (size_t)size}, {(void *)data, length}};
    syscall(SYS_writev, log_fd, parts, length ? 2 : 1);
}

static unsigned long inode(int fd) {
    struct stat status;
    return fstat(fd, &status) == 0 ? (unsigned long)status.st_ino : 0;
}

/* Runs with the guard held, so that the log has the order in which things happened. */
static void opened(int fd, const char *path, int flags) {
    char real[PATH_MAX];
    (void)path;
    if (fd < 0 || log_fd < 0 || !where(fd, real)) return;
    if (flags & O_CREAT) put("create", inode(fd), 0, NULL, 0, real, NULL);
    if (flags & O_TRUNC) put("truncate", inode(fd), 0, NULL, 0, real, NULL);
}

static void wrote(int fd, const void *data, ssize_t length, off_t offset) {
    char real[PATH_MAX];
    if (length <= 0 || log_fd < 0 || fd == log_fd || !where(fd, real)) return;
    put("write", inode(fd), (long)offset, data, (size_t)length, real, NULL);
}

#define REAL(name) static __typeof__(&name) real = NULL; if (real == NULL) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name); start()
#define LOCKED(expression) ({ pthread_mutex_lock(&guard); __typeof__(expression) result_ = (expression); result_; })
#define UNLOCK pthread_mutex_unlock(&guard)

#define OPEN(name) \
int name(const char *path, int flags, ...) { \
    REAL(name); mode_t mode = 0; \
    if (flags & (O_CREAT | O_TMPFILE)) { va_list more; va_start(more, flags); mode = va_arg(more, mode_t); va_end(more); } \
    int fd = LOCKED(real(path, flags, mode)); opened(fd, path, flags); UNLOCK; return fd; }
OPEN(open) OPEN(open64)

#define OPENAT(name) \
int name(int at, const char *path, int flags, ...) { \
    REAL(name); mode_t mode = 0; \
    if (flags & (O_CREAT | O_TMPFILE)) { va_list more; va_start(more, flags); mode = va_arg(more, mode_t); va_end(more); } \
    int fd = LOCKED(real(at, path, flags, mode)); opened(fd, path, flags); UNLOCK; return fd; }
OPENAT(openat) OPENAT(openat64)

ssize_t write(int fd, const void *data, size_t length) {
    REAL(write);
    pthread_mutex_lock(&guard);
    off_t offset = lseek(fd, 0, SEEK_CUR);
    ssize_t done = real(fd, data, length);
    if (offset >= 0) wrote(fd, data, done, offset);
    UNLOCK;
    return done;
}
#define PWRITE(name, type) \
ssize_t name(int fd, const void *data, size_t length, type offset) { \
    REAL(name); ssize_t done = LOCKED(real(fd, data, length, offset)); wrote(fd, data, done, offset); UNLOCK; return done; }
PWRITE(pwrite, off_t) PWRITE(pwrite64, off64_t)

static void resized(int fd, long size) {
    char real[PATH_MAX];
    if (log_fd >= 0 && where(fd, real)) put("truncate", inode(fd), size, NULL, 0, real, NULL);
}
int ftruncate(int fd, off_t size) { REAL(ftruncate); int done = LOCKED(real(fd, size)); if (!done) resized(fd, size); UNLOCK; return done; }
int ftruncate64(int fd, off64_t size) { REAL(ftruncate64); int done = LOCKED(real(fd, size)); if (!done) resized(fd, size); UNLOCK; return done; }

static void synced(int fd) {
    char real[PATH_MAX];
    struct stat status;
    if (log_fd < 0 || fstat(fd, &status) || !where(fd, real)) return;
    put(S_ISDIR(status.st_mode) ? "syncdir" : "sync", (unsigned long)status.st_ino, 0, NULL, 0, real, NULL);
}
int fsync(int fd) { REAL(fsync); int done = LOCKED(real(fd)); if (!done) synced(fd); UNLOCK; return done; }
int fdatasync(int fd) { REAL(fdatasync); int done = LOCKED(real(fd)); if (!done) synced(fd); UNLOCK; return done; }

int rename(const char *from, const char *to) {
    REAL(rename);
    int done = LOCKED(real(from, to));
    if (!done && log_fd >= 0 && below(to)) put("rename", 0, 0, NULL, 0, from, to);
    UNLOCK;
    return done;
}
int unlink(const char *path) {
    REAL(unlink);
    int done = LOCKED(real(path));
    if (!done && log_fd >= 0 && below(path)) put("unlink", 0, 0, NULL, 0, path, NULL);
    UNLOCK;
    return done;
}
int mkdir(const char *path, mode_t mode) {
    REAL(mkdir);
    int done = LOCKED(real(path, mode));
    if (!done && log_fd >= 0 && below(path)) put("mkdir", 0, 0, NULL, 0, path, NULL);
    UNLOCK;
    return done;
}
