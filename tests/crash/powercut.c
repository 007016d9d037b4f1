/* Notes everything that is done to the files below one directory, in order, so that the disk of any moment can be made
 * again as a power cut would have left it; and fails a call as a broken or full disk would.
 *
 * LD_PRELOADed. Armed by powercut_arm("DIRECTORY\nLOG") or ("DIRECTORY\n\nCLASS:FIRST:COUNT:ERRNO"), or by the
 * environment variable POWERCUT with the same text. CLASS is "write" (writes, truncations, allocations, creations) or
 * "sync"; ERRNO 0 stands for a short write. Each record of the log is one write(2), made after the call it notes:
 *
 *   struct head { u32 kind, path bytes; u64 inode, offset, length; } then the path, then the data.
 *
 * A sync is noted before (SYNC_BEGUN) and after (SYNC_DONE): what was written between the two may not have been synced.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { CREATED = 1, WRITTEN, TRUNCATED, RENAMED, REMOVED, SYNC_BEGUN, SYNC_DONE };

struct head {
    uint32_t kind, path_length;
    uint64_t inode, offset, length;
};

static char root[PATH_MAX];
static size_t root_length;
static int log_handle = -1;
static char fail_class[16];
static long fail_first, fail_count, fail_errno;
static volatile long calls_of_class;
static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;

/* The next definition of a function: the C library's. */
#define NEXT(type, name, ...)                         \
    static type (*next)(__VA_ARGS__);                 \
    if (!next) next = dlsym(RTLD_NEXT, name)

void powercut_arm(const char *wish)
{
    char text[3 * PATH_MAX], *log, *fault;
    if (strlen(wish) >= sizeof text) abort();
    strcpy(text, wish);
    log = strchr(text, '\n');
    fault = log ? strchr(log + 1, '\n') : NULL;
    if (log) *log++ = 0;
    if (fault) *fault++ = 0;
    root_length = strlen(text);
    if (root_length >= sizeof root) abort();
    memcpy(root, text, root_length + 1);
    if (log && *log)
        log_handle = (int)syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fault && *fault)
        sscanf(fault, "%15[a-z]:%ld:%ld:%ld", fail_class, &fail_first, &fail_count, &fail_errno);
}

/* How many calls of the class were made so far: the range over which faults are tried. */
long powercut_calls(void) { return calls_of_class; }

__attribute__((constructor)) static void arm_by_environment(void)
{
    const char *wish = getenv("POWERCUT");
    if (wish) powercut_arm(wish);
}

static int is_below(const char *path)
{
    return root_length && !strncmp(path, root, root_length) && (path[root_length] == '/' || !path[root_length]);
}

static int path_of(int handle, char *path)
{
    char link[64];
    ssize_t length;
    if (!root_length || handle < 0) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", handle);
    length = readlink(link, path, PATH_MAX - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    return is_below(path);
}

static int absolute(int directory, const char *name, char *path)
{
    char base[PATH_MAX];
    if (!root_length || !name) return 0;
    if (*name == '/') {
        if (strlen(name) >= PATH_MAX) return 0;
        strcpy(path, name);
    } else {
        if (directory == AT_FDCWD) { if (!getcwd(base, sizeof base)) return 0; }
        else if (!path_of(directory, base)) return 0;
        if (snprintf(path, PATH_MAX, "%s/%s", base, name) >= PATH_MAX) return 0;
    }
    return is_below(path);
}

static void note(uint32_t kind, uint64_t inode, uint64_t offset, uint64_t length, const char *path, const void *data)
{
    struct head head = {kind, path ? (uint32_t)strlen(path) : 0, inode, offset, length};
    struct iovec parts[3] = {{&head, sizeof head}, {(void *)path, head.path_length}, {(void *)data, data ? length : 0}};
    int before = errno;
    if (log_handle < 0) return;
    pthread_mutex_lock(&one_at_a_time);
    if (syscall(SYS_writev, log_handle, parts, 3) != (long)(sizeof head + head.path_length + (data ? length : 0)))
        abort(); /* a log with a hole proves nothing */
    pthread_mutex_unlock(&one_at_a_time);
    errno = before;
}

/* Whether this call is to fail; errno is set then. A short write is told by a result of 2. */
static int fails(const char *class)
{
    long number;
    if (!fail_count || strcmp(class, fail_class)) return 0;
    number = __sync_add_and_fetch(&calls_of_class, 1);
    if (number < fail_first || number >= fail_first + fail_count) return 0;
    if (!fail_errno) return 2;
    errno = (int)fail_errno;
    return 1;
}

static uint64_t inode_of(int handle)
{
    struct stat found;
    return fstat(handle, &found) ? 0 : found.st_ino;
}

static int is_index_of_log(const char *path)
{
    size_t length = strlen(path);
    return length > 4 && !strcmp(path + length - 4, "-shm"); /* SQLite's index of the log: made anew at each start */
}

#define WATCHED(handle, path) (path_of(handle, path) && !is_index_of_log(path))

/* Writing */

#define WRITES(name, offset_type)                                                                       \
    ssize_t name(int handle, const void *data, size_t length, offset_type offset)                       \
    {                                                                                                   \
        char path[PATH_MAX];                                                                            \
        int how, watched = WATCHED(handle, path);                                                       \
        ssize_t written;                                                                                \
        NEXT(ssize_t, #name, int, const void *, size_t, offset_type);                                   \
        if (watched && (how = fails("write"))) {                                                        \
            if (how == 1) return -1;                                                                    \
            length = length > 1 ? length / 2 : length;                                                  \
        }                                                                                               \
        written = next(handle, data, length, offset);                                                   \
        if (watched && written > 0) note(WRITTEN, inode_of(handle), (uint64_t)offset, (uint64_t)written, NULL, data); \
        return written;                                                                                 \
    }
WRITES(pwrite, off_t)
WRITES(pwrite64, off64_t)

ssize_t write(int handle, const void *data, size_t length)
{
    char path[PATH_MAX];
    int how, watched = WATCHED(handle, path);
    ssize_t written;
    NEXT(ssize_t, "write", int, const void *, size_t);
    if (watched && (how = fails("write"))) {
        if (how == 1) return -1;
        length = length > 1 ? length / 2 : length;
    }
    written = next(handle, data, length);
    if (watched && written > 0) /* wherever it began: it has ended where the next one begins, also when appended */
        note(WRITTEN, inode_of(handle), (uint64_t)(lseek(handle, 0, SEEK_CUR) - written), (uint64_t)written, NULL, data);
    return written;
}

#define TRUNCATES(name, offset_type)                                                                    \
    int name(int handle, offset_type length)                                                            \
    {                                                                                                   \
        char path[PATH_MAX];                                                                            \
        int result, watched = WATCHED(handle, path);                                                    \
        NEXT(int, #name, int, offset_type);                                                             \
        if (watched && fails("write")) return errno = errno ? errno : EIO, -1;                          \
        result = next(handle, length);                                                                  \
        if (watched && !result) note(TRUNCATED, inode_of(handle), (uint64_t)length, 0, NULL, NULL);     \
        return result;                                                                                  \
    }
TRUNCATES(ftruncate, off_t)
TRUNCATES(ftruncate64, off64_t)

#define ALLOCATES(name, offset_type)                                                                    \
    int name(int handle, offset_type offset, offset_type length)                                        \
    {                                                                                                   \
        char path[PATH_MAX];                                                                            \
        int result, watched = WATCHED(handle, path);                                                    \
        struct stat found;                                                                              \
        NEXT(int, #name, int, offset_type, offset_type);                                                \
        if (watched && fails("write")) return errno ? errno : ENOSPC;                                   \
        result = next(handle, offset, length);                                                          \
        if (watched && !result && !fstat(handle, &found))                                               \
            note(TRUNCATED, found.st_ino, (uint64_t)found.st_size, 0, NULL, NULL);                      \
        return result;                                                                                  \
    }
ALLOCATES(posix_fallocate, off_t)
ALLOCATES(posix_fallocate64, off64_t)

/* Whoever finds these missing falls back on write(2). */

#define LACKS(type, name, parameters, arguments, at, ...)                                               \
    type name parameters                                                                                \
    {                                                                                                   \
        char path[PATH_MAX];                                                                            \
        NEXT(type, #name, __VA_ARGS__);                                                                 \
        if (WATCHED(at, path)) return errno = ENOSYS, -1;                                               \
        return next arguments;                                                                          \
    }
LACKS(ssize_t, sendfile, (int to, int from, off_t *offset, size_t length), (to, from, offset, length), to,
      int, int, off_t *, size_t)
LACKS(ssize_t, sendfile64, (int to, int from, off64_t *offset, size_t length), (to, from, offset, length), to,
      int, int, off64_t *, size_t)
LACKS(ssize_t, copy_file_range, (int from, off64_t *a, int to, off64_t *b, size_t length, unsigned flags),
      (from, a, to, b, length, flags), to, int, off64_t *, int, off64_t *, size_t, unsigned)
LACKS(ssize_t, writev, (int to, const struct iovec *parts, int count), (to, parts, count), to,
      int, const struct iovec *, int)
LACKS(ssize_t, pwritev, (int to, const struct iovec *parts, int count, off_t at), (to, parts, count, at), to,
      int, const struct iovec *, int, off_t)

/* Syncing */

#define SYNCS(name)                                                                                     \
    int name(int handle)                                                                                \
    {                                                                                                   \
        char path[PATH_MAX];                                                                            \
        int result, watched = WATCHED(handle, path);                                                    \
        uint64_t inode = watched ? inode_of(handle) : 0;                                                \
        NEXT(int, #name, int);                                                                          \
        if (watched && fails("sync")) return errno = errno ? errno : EIO, -1;                           \
        if (watched) note(SYNC_BEGUN, inode, 0, 0, path, NULL);                                         \
        result = next(handle);                                                                          \
        if (watched && !result) note(SYNC_DONE, inode, 0, 0, path, NULL);                               \
        return result;                                                                                  \
    }
SYNCS(fsync)
SYNCS(fdatasync)

/* Names */

static int opened(int handle, const char *path, int existed, int flags)
{
    if (handle >= 0 && !existed) note(CREATED, inode_of(handle), 0, 0, path, NULL);
    else if (handle >= 0 && (flags & O_TRUNC)) note(TRUNCATED, inode_of(handle), 0, 0, NULL, NULL);
    return handle;
}

#define OPENS(name, at, parameters, arguments, directory)                                               \
    int name parameters                                                                                 \
    {                                                                                                   \
        char path[PATH_MAX];                                                                            \
        struct stat found;                                                                              \
        int existed = 1, watched = 0, handle;                                                           \
        mode_t mode = 0;                                                                                \
        NEXT(int, #name, at const char *, int, ...);                                                    \
        if (flags & (O_CREAT | O_TMPFILE)) {                                                            \
            va_list rest;                                                                               \
            va_start(rest, flags);                                                                      \
            mode = va_arg(rest, mode_t);                                                                \
            va_end(rest);                                                                               \
        }                                                                                               \
        if ((flags & (O_CREAT | O_TRUNC)) && absolute(directory, file, path) && !is_index_of_log(path)) { \
            watched = 1;                                                                                \
            existed = !lstat(path, &found);                                                             \
            if (!existed && fails("write")) return errno = errno ? errno : ENOSPC, -1;                  \
        }                                                                                               \
        handle = next arguments;                                                                        \
        return watched ? opened(handle, path, existed, flags) : handle;                                 \
    }
OPENS(open, , (const char *file, int flags, ...), (file, flags, mode), AT_FDCWD)
OPENS(open64, , (const char *file, int flags, ...), (file, flags, mode), AT_FDCWD)
#define AT int,
OPENS(openat, AT, (int directory, const char *file, int flags, ...), (directory, file, flags, mode), directory)
OPENS(openat64, AT, (int directory, const char *file, int flags, ...), (directory, file, flags, mode), directory)

/* The record of a rename holds both names, a zero byte between them. */
static void renamed(const char *from, const char *to)
{
    char both[2 * PATH_MAX];
    struct stat found;
    size_t length = strlen(from) + 1 + strlen(to);
    if (length >= sizeof both || lstat(to, &found)) return;
    memcpy(both, from, strlen(from) + 1);
    memcpy(both + strlen(from) + 1, to, strlen(to));
    note(RENAMED, found.st_ino, 0, length, NULL, both);
}

int rename(const char *from, const char *to)
{
    char one[PATH_MAX], other[PATH_MAX];
    int watched = absolute(AT_FDCWD, from, one) & absolute(AT_FDCWD, to, other), result;
    NEXT(int, "rename", const char *, const char *);
    if (watched && fails("write")) return errno = errno ? errno : EIO, -1;
    result = next(from, to);
    if (watched && !result) renamed(one, other);
    return result;
}

int renameat(int from_directory, const char *from, int to_directory, const char *to)
{
    char one[PATH_MAX], other[PATH_MAX];
    int watched = absolute(from_directory, from, one) & absolute(to_directory, to, other), result;
    NEXT(int, "renameat", int, const char *, int, const char *);
    if (watched && fails("write")) return errno = errno ? errno : EIO, -1;
    result = next(from_directory, from, to_directory, to);
    if (watched && !result) renamed(one, other);
    return result;
}

static void removed(const char *path)
{
    if (!is_index_of_log(path)) note(REMOVED, 0, 0, 0, path, NULL);
}

int unlink(const char *file)
{
    char path[PATH_MAX];
    int watched = absolute(AT_FDCWD, file, path), result;
    NEXT(int, "unlink", const char *);
    result = next(file);
    if (watched && !result) removed(path);
    return result;
}

int unlinkat(int directory, const char *file, int flags)
{
    char path[PATH_MAX];
    int watched = absolute(directory, file, path), result;
    NEXT(int, "unlinkat", int, const char *, int);
    result = next(directory, file, flags);
    if (watched && !result) removed(path);
    return result;
}
