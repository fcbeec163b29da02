/*
 * Faults below the database: a library that is preloaded into the gateway and stands between SQLite and the C library.
 *
 * It looks at files below the directory TENURE_FAULTS_BELOW, and does what the file TENURE_FAULTS says, which it reads again
 * before every call that it stands in for:
 *
 *   off            nothing
 *   short          a write writes half of what it should, and the next one finds the disk full
 *   full           a write finds the disk full (ENOSPC)
 *   fsync          a sync fails (EIO); what was written since the last sync that did not is as unsafe as before, also after
 *                  a later sync that succeeds, unless it was written anew (as Linux has it: a failed page counts as clean)
 *   power SEED N   a power cut in the midst of the N-th call from now on
 *
 * A power cut leaves of each file some state that the disk may be in when only syncs are promises: each sector of 512 bytes is
 * as of any write since the last sync, each on its own, whatever the order of the writes was; the write under way counts, in
 * part; growth that was not synced may be cut off anywhere; a shrinking that was not synced may not have happened. By SEED all
 * unsynced writes are lost, or none, or some. Then the process leaves at once, by _exit(137).
 *
 * What it does not model: names of files (creating, renaming and deleting one is safe at once, as if directories were
 * always synced), sectors that hold half of each of two writes (torn within 512 bytes), sectors that were never written going
 * bad, a disk that lies about syncs; and the -shm file, which is memory shared with nobody here and is built anew.
 * It stands in for write, pwrite, pwrite64, fsync, fdatasync, ftruncate, ftruncate64: the calls that change a file's content
 * here; writev, mmap and fallocate are not used for it.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SECTOR 512

/* A change since the last sync of its file: what was there before. */
struct change {
    struct change *older;
    dev_t dev;
    ino_t ino;
    off_t at;        /* the first byte that changed */
    size_t length;   /* so many bytes of content are kept */
    int outlives;    /* its sync failed: a later one does not make it safe */
    int is_cut;      /* a truncation: the content is what was cut off */
    char *settled;   /* for each sector from `at` on: a later content of it is safe */
    char content[];
};

/* The size that a file is sure to have. */
struct file {
    struct file *next;
    dev_t dev;
    ino_t ino;
    off_t size;
    char path[PATH_MAX];
};

enum mode { OFF, SHORT, FULL, FSYNC, POWER };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct change *changes;
static struct file *files;
static int was_short;
static uint64_t random_state;
static long calls_left = -1;

static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static int (*real_fsync)(int);
static int (*real_fdatasync)(int);
static int (*real_ftruncate)(int, off_t);

static void resolve(void) {
    if (real_ftruncate) return;
    real_write = dlsym(RTLD_NEXT, "write");
    real_pwrite = dlsym(RTLD_NEXT, "pwrite64");
    real_fsync = dlsym(RTLD_NEXT, "fsync");
    real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
    real_ftruncate = dlsym(RTLD_NEXT, "ftruncate64");
}

/* SplitMix64. */
static uint64_t next_random(void) {
    uint64_t z = (random_state += 0x9E3779B97F4A7C15ull);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return z ^ (z >> 31);
}

/* Reads the whole file with calls that nobody stands in for. */
static enum mode mode_now(void) {
    char text[128] = "";
    char *path = getenv("TENURE_FAULTS");
    int fd = path ? (int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0) return OFF;
    ssize_t length = syscall(SYS_read, fd, text, sizeof text - 1);
    syscall(SYS_close, fd);
    if (length <= 0) return OFF;
    unsigned long long seed;
    long calls;
    if (!strncmp(text, "short", 5)) return SHORT;
    if (!strncmp(text, "full", 4)) return FULL;
    if (!strncmp(text, "fsync", 5)) return FSYNC;
    if (sscanf(text, "power %llu %ld", &seed, &calls) != 2) return OFF;
    if (calls_left < 0) {
        random_state = seed;
        calls_left = calls;
    }
    return POWER;
}

/* The file of a descriptor, if it is one of those that are looked at. Call with the lock held. */
static struct file *file_of(int fd) {
    char link[64], path[PATH_MAX];
    struct stat stat;
    char *below = getenv("TENURE_FAULTS_BELOW");
    if (!below) return NULL;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0) return NULL;
    path[length] = 0;
    size_t prefix = strlen(below);
    if (strncmp(path, below, prefix) || path[prefix] != '/') return NULL;
    if (length > 4 && !strcmp(path + length - 4, "-shm")) return NULL;
    if (fstat(fd, &stat) || !S_ISREG(stat.st_mode)) return NULL;
    for (struct file *file = files; file; file = file->next)
        if (file->dev == stat.st_dev && file->ino == stat.st_ino) {
            strcpy(file->path, path); /* it may have been renamed since */
            return file;
        }
    struct file *file = calloc(1, sizeof *file);
    if (!file) abort();
    file->dev = stat.st_dev;
    file->ino = stat.st_ino;
    file->size = stat.st_size; /* what an earlier process left counts as safe: that one was not cut */
    strcpy(file->path, path);
    file->next = files;
    return files = file;
}

static off_t size_of(int fd) {
    struct stat stat;
    return fstat(fd, &stat) ? 0 : stat.st_size;
}

static size_t sectors_of(const struct change *change) {
    return (change->at + change->length + SECTOR - 1) / SECTOR - change->at / SECTOR;
}

/* Keeps what a write or a truncation is about to change. SQLite opens its files for reading too; what cannot be read (the
 * secret's own new file) was empty before. */
static void keep(int fd, const struct file *file, off_t at, size_t length, int is_cut) {
    struct change *change = calloc(1, sizeof *change + length);
    if (!change) abort();
    ssize_t got = length ? pread(fd, change->content, length, at) : 0;
    (void)got; /* beyond the end there were zeros, as calloc has them */
    *change = (struct change){.older = changes, .dev = file->dev, .ino = file->ino, .at = at, .length = length,
                              .is_cut = is_cut};
    change->settled = calloc(1, sectors_of(change) + 1);
    if (!change->settled) abort();
    changes = change;
}

static int is_of(const struct change *change, const struct file *file) {
    return change->dev == file->dev && change->ino == file->ino;
}

/* Every change of the file is safe; or, after a failed sync, as unsafe for ever as it is now. */
static void synced(int fd, struct file *file, int has_failed) {
    struct change **place = &changes;
    if (has_failed) {
        for (struct change *change = changes; change; change = change->older)
            if (is_of(change, file)) change->outlives = 1;
        return;
    }
    file->size = size_of(fd);
    while (*place) {
        struct change *change = *place;
        if (!is_of(change, file) || change->outlives) {
            place = &change->older;
            continue;
        }
        /* What was written anew is safe now, whatever became of it earlier. */
        for (struct change *old = change->older; old; old = old->older) {
            if (!is_of(old, file) || old->is_cut) continue;
            for (size_t i = 0; i < sectors_of(old); i++) {
                off_t at = (old->at / SECTOR + i) * SECTOR;
                if (at >= change->at && at + SECTOR <= (off_t)(change->at + change->length)) old->settled[i] = 1;
            }
        }
        *place = change->older;
        free(change->settled);
        free(change);
    }
}

static struct file *file_named(const struct change *change) {
    for (struct file *file = files; file; file = file->next)
        if (is_of(change, file)) return file;
    return NULL;
}

/* Takes one change back, sector by sector; what is settled for a sector stays for everything older. */
static void take_back(struct change *change, int lost_in_100) {
    struct file *file = file_named(change);
    int fd = file ? (int)syscall(SYS_openat, AT_FDCWD, file->path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0) return; /* it was deleted: deleting is safe at once */
    if (change->is_cut && (int)(next_random() % 100) >= lost_in_100) change->length = 0;
    for (size_t i = 0; change->length && i < sectors_of(change); i++) {
        off_t from = (change->at / SECTOR + i) * SECTOR, to = from + SECTOR;
        if (from < change->at) from = change->at;
        if (to > (off_t)(change->at + change->length)) to = change->at + change->length;
        int stays = change->settled[i] || (!change->is_cut && (int)(next_random() % 100) >= lost_in_100);
        if (!stays) {
            real_pwrite(fd, change->content + (from - change->at), to - from, from);
            continue;
        }
        for (struct change *old = change->older; old; old = old->older) {
            off_t first = old->at / SECTOR, sector = from / SECTOR;
            if (is_of(old, file) && sector >= first && sector < first + (off_t)sectors_of(old))
                old->settled[sector - first] = 1;
        }
    }
    syscall(SYS_close, fd);
}

static void cut_growth(struct file *file, int lost_in_100) {
    int fd = (int)syscall(SYS_openat, AT_FDCWD, file->path, O_RDWR | O_CLOEXEC);
    if (fd < 0) return;
    off_t size = size_of(fd);
    if (size > file->size && (int)(next_random() % 100) < lost_in_100) {
        off_t grown = size - file->size;
        off_t left = lost_in_100 == 100 ? 0 : (off_t)(next_random() % (uint64_t)grown) / SECTOR * SECTOR;
        real_ftruncate(fd, file->size + left);
    }
    syscall(SYS_close, fd);
}

/* Call with the lock held: nobody else writes any more. */
static void power_cut(void) {
    static const int shares[] = {100, 50, 50, 20, 80, 0};
    int lost_in_100 = shares[next_random() % (sizeof shares / sizeof *shares)];
    for (struct change *change = changes; change; change = change->older) take_back(change, lost_in_100);
    for (struct file *file = files; file; file = file->next) cut_growth(file, lost_in_100);
    _exit(137);
}

/* Counts a call; returns whether the power goes in its midst. */
static int is_the_last(enum mode mode) {
    return mode == POWER && calls_left-- <= 0;
}

static ssize_t written(int fd, const void *bytes, size_t length, off_t at, int moves) {
    ssize_t done = -1;
    pthread_mutex_lock(&lock);
    resolve();
    struct file *file = file_of(fd);
    enum mode mode = file ? mode_now() : OFF;
    if (mode != SHORT) was_short = 0;
    if (mode == FULL || (mode == SHORT && was_short)) {
        was_short = 0;
        errno = ENOSPC;
        goto leave;
    }
    if (mode == SHORT && length > 1) {
        was_short = 1;
        length /= 2;
    }
    if (file) keep(fd, file, moves ? lseek(fd, 0, SEEK_CUR) : at, length, 0);
    if (is_the_last(mode)) {
        size_t part = next_random() % (length + 1) / SECTOR * SECTOR;
        if (moves) real_write(fd, bytes, part);
        else real_pwrite(fd, bytes, part, at);
        power_cut();
    }
    done = moves ? real_write(fd, bytes, length) : real_pwrite(fd, bytes, length, at);
leave:;
    int error = errno;
    pthread_mutex_unlock(&lock);
    errno = error;
    return done;
}

static int sync_file(int fd, int (*sync)(int)) {
    int done = -1;
    pthread_mutex_lock(&lock);
    struct file *file = file_of(fd);
    enum mode mode = file ? mode_now() : OFF;
    if (mode == FSYNC) {
        synced(fd, file, 1);
        errno = EIO;
    } else {
        if (is_the_last(mode)) power_cut();
        done = sync(fd);
        if (file && done == 0) synced(fd, file, 0);
    }
    int error = errno;
    pthread_mutex_unlock(&lock);
    errno = error;
    return done;
}

ssize_t write(int fd, const void *bytes, size_t length) {
    resolve();
    /* Pipes, sockets and terminals are most of what is written this way. */
    if (fd <= 2) return real_write(fd, bytes, length);
    return written(fd, bytes, length, 0, 1);
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t at) {
    return written(fd, bytes, length, at, 0);
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t at) {
    return written(fd, bytes, length, at, 0);
}

int fsync(int fd) {
    resolve();
    return sync_file(fd, real_fsync);
}

int fdatasync(int fd) {
    resolve();
    return sync_file(fd, real_fdatasync);
}

int ftruncate64(int fd, off64_t size) {
    pthread_mutex_lock(&lock);
    resolve();
    struct file *file = file_of(fd);
    enum mode mode = file ? mode_now() : OFF;
    off_t before = size_of(fd);
    if (file && size < before) keep(fd, file, size, before - size, 1);
    if (is_the_last(mode)) power_cut();
    int done = real_ftruncate(fd, size);
    if (file && size < before && file->size > size) file->size = size;
    int error = errno;
    pthread_mutex_unlock(&lock);
    errno = error;
    return done;
}

int ftruncate(int fd, off_t size) {
    return ftruncate64(fd, size);
}
