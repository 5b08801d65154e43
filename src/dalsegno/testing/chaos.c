/* A disk that can lose what was not synced, fail a sync, or be full.

   Loaded with LD_PRELOAD it stands between a program and the C library. Armed with the prefix of some files' paths
   it writes down each write, truncation, sync and removal of those files, so that what a power cut would have left
   can be rebuilt; and it fails the sync or the write it was told to. Everything else passes.

   A record: kind (1 byte), length of the path (2), offset (8), length (8), path, data; numbers little-endian. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#define MAX_FD 4096
#define REAL(name, type, ...) \
    static type (*real)(__VA_ARGS__); \
    if (!real) real = (type (*)(__VA_ARGS__)) dlsym(RTLD_NEXT, name)

static char *paths[MAX_FD];
static char prefix[4096];
static int log_fd = -1;
static long fail_sync_at, syncs;
static long long full_after = -1, written;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* Begin: `log_path` may be empty; `fail_sync` counts from 1, 0 for never; `full` in bytes, -1 for never. */
void chaos_arm(const char *files, const char *log_path, long fail_sync, long long full) {
    int fd = *log_path ? open(log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644) : -1;
    pthread_mutex_lock(&lock);
    log_fd = fd;
    strncpy(prefix, files, sizeof prefix - 1);
    fail_sync_at = fail_sync;
    full_after = full;
    syncs = 0;
    written = 0;
    pthread_mutex_unlock(&lock);
}

static int ends(const char *path, const char *tail) {
    size_t n = strlen(path), m = strlen(tail);
    return n >= m && !strcmp(path + n - m, tail);
}

static int watched(const char *path) {
    /* The wal-index is shared memory: nothing of it outlives a power cut. */
    return *prefix && !strncmp(path, prefix, strlen(prefix)) && !ends(path, "-shm");
}

static const char *path_of(int fd) {
    return fd >= 0 && fd < MAX_FD ? paths[fd] : NULL;
}

static void note(char kind, const char *path, int64_t offset, const void *data, int64_t length) {
    static ssize_t (*raw)(int, const void *, size_t);
    if (!raw) raw = (ssize_t (*)(int, const void *, size_t)) dlsym(RTLD_NEXT, "write");
    if (log_fd < 0) return;
    uint16_t n = (uint16_t) strlen(path);
    size_t size = 19 + n + (data ? (size_t) length : 0);
    char *record = malloc(size);
    record[0] = kind;
    memcpy(record + 1, &n, 2);
    memcpy(record + 3, &offset, 8);
    memcpy(record + 11, &length, 8);
    memcpy(record + 19, path, n);
    if (data) memcpy(record + 19 + n, data, (size_t) length);
    if (raw(log_fd, record, size) < 0) abort();
    free(record);
}

static void opened(int fd, const char *path) {
    if (fd < 0 || fd >= MAX_FD) return;
    pthread_mutex_lock(&lock);
    free(paths[fd]);
    paths[fd] = watched(path) ? strdup(path) : NULL;
    pthread_mutex_unlock(&lock);
}

static int mode_of(int flags, va_list more) {
    return flags & O_CREAT ? va_arg(more, int) : 0;
}

int open(const char *path, int flags, ...) {
    REAL("open", int, const char *, int, ...);
    va_list more;
    va_start(more, flags);
    int fd = real(path, flags, mode_of(flags, more));
    va_end(more);
    opened(fd, path);
    return fd;
}

int open64(const char *path, int flags, ...) {
    REAL("open64", int, const char *, int, ...);
    va_list more;
    va_start(more, flags);
    int fd = real(path, flags, mode_of(flags, more));
    va_end(more);
    opened(fd, path);
    return fd;
}

int close(int fd) {
    REAL("close", int, int);
    if (path_of(fd)) {
        pthread_mutex_lock(&lock);
        free(paths[fd]);
        paths[fd] = NULL;
        pthread_mutex_unlock(&lock);
    }
    return real(fd);
}

static int is_full(size_t length) {
    written += (long long) length;
    return full_after >= 0 && written > full_after;
}

static ssize_t write_at(ssize_t (*real)(int, const void *, size_t, off_t), int fd, const void *data, size_t n, off_t at) {
    const char *path = path_of(fd);
    if (!path) return real(fd, data, n, at);
    pthread_mutex_lock(&lock);
    ssize_t done = -1;
    if (is_full(n)) errno = ENOSPC;
    else if ((done = real(fd, data, n, at)) > 0) note('W', path, at, data, done);
    pthread_mutex_unlock(&lock);
    return done;
}

ssize_t pwrite(int fd, const void *data, size_t n, off_t at) {
    REAL("pwrite", ssize_t, int, const void *, size_t, off_t);
    return write_at(real, fd, data, n, at);
}

ssize_t pwrite64(int fd, const void *data, size_t n, off_t at) {
    REAL("pwrite64", ssize_t, int, const void *, size_t, off_t);
    return write_at(real, fd, data, n, at);
}

ssize_t write(int fd, const void *data, size_t n) {
    REAL("write", ssize_t, int, const void *, size_t);
    const char *path = path_of(fd);
    if (!path) return real(fd, data, n);
    pthread_mutex_lock(&lock);
    ssize_t done = real(fd, data, n);
    if (done > 0) note('W', path, lseek(fd, 0, SEEK_CUR) - done, data, done);
    pthread_mutex_unlock(&lock);
    return done;
}

static int cut_to(int (*real)(int, off_t), int fd, off_t size) {
    const char *path = path_of(fd);
    if (!path) return real(fd, size);
    pthread_mutex_lock(&lock);
    int failed = real(fd, size);
    if (!failed) note('T', path, size, NULL, 0);
    pthread_mutex_unlock(&lock);
    return failed;
}

int ftruncate(int fd, off_t size) {
    REAL("ftruncate", int, int, off_t);
    return cut_to(real, fd, size);
}

int ftruncate64(int fd, off_t size) {
    REAL("ftruncate64", int, int, off_t);
    return cut_to(real, fd, size);
}

static int sync_file(int (*real)(int), int fd) {
    const char *path = path_of(fd);
    if (!path) return real(fd);
    pthread_mutex_lock(&lock);
    int failed = -1;
    if (++syncs == fail_sync_at) {
        note('E', path, 0, NULL, 0);
        errno = EIO;
    } else if (!(failed = real(fd))) {
        note('S', path, 0, NULL, 0);
    }
    pthread_mutex_unlock(&lock);
    return failed;
}

int fsync(int fd) {
    REAL("fsync", int, int);
    return sync_file(real, fd);
}

int fdatasync(int fd) {
    REAL("fdatasync", int, int);
    return sync_file(real, fd);
}

int unlink(const char *path) {
    REAL("unlink", int, const char *);
    int failed = real(path);
    if (!failed && watched(path)) {
        pthread_mutex_lock(&lock);
        note('U', path, 0, NULL, 0);
        pthread_mutex_unlock(&lock);
    }
    return failed;
}
