/*
 * A disk that misbehaves, for one process: LD_PRELOAD it. The file named by FAULTY_DISK holds one line,
 * "WHAT PATH NUMBER": from then on, calls on files whose path contains PATH do WHAT:
 *
 *   slow-sync PATH MS    a sync takes so much longer
 *   hang-sync PATH 0     a sync does not return while the file says so
 *   fail-sync PATH N     the next N syncs fail with EIO, without having synced; later ones "succeed"
 *   fail-write PATH N    the next N writes fail with EIO
 *
 * An empty file is a disk that works. Only what the tests need: fsync, fdatasync, pwrite64.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char spent_line[256];
static long spent;

/* 0: nothing is wrong with this call. */
static int fault(int fd, const char *what, long *number) {
  const char *control = getenv("FAULTY_DISK");
  if (control == NULL) return 0;
  char line[256] = "";
  int file = open(control, O_RDONLY | O_CLOEXEC);
  if (file < 0) return 0;
  ssize_t length = read(file, line, sizeof line - 1);
  close(file);
  if (length <= 0) return 0;
  char kind[64] = "", part[128] = "";
  if (sscanf(line, "%63s %127s %ld", kind, part, number) != 3 || strcmp(kind, what) != 0) return 0;
  char link[64], path[PATH_MAX];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t n = readlink(link, path, sizeof path - 1);
  if (n < 0) return 0;
  path[n] = 0;
  return strstr(path, part) != NULL;
}

/* True for the first `number` calls under this line. */
static int spend(const char *what, long number) {
  pthread_mutex_lock(&lock);
  if (strcmp(spent_line, what) != 0) {
    snprintf(spent_line, sizeof spent_line, "%s", what);
    spent = 0;
  }
  int yes = spent < number;
  if (yes) spent += 1;
  pthread_mutex_unlock(&lock);
  return yes;
}

static void pause_ms(long ms) {
  struct timespec time = {ms / 1000, (ms % 1000) * 1000000};
  nanosleep(&time, NULL);
}

static int sync_with(int fd, const char *name) {
  long number = 0;
  if (fault(fd, "slow-sync", &number)) pause_ms(number);
  while (fault(fd, "hang-sync", &number)) pause_ms(20);
  if (fault(fd, "fail-sync", &number) && spend("fail-sync", number)) {
    errno = EIO;
    return -1;
  }
  int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
  return real(fd);
}

int fsync(int fd) { return sync_with(fd, "fsync"); }
int fdatasync(int fd) { return sync_with(fd, "fdatasync"); }

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t offset) {
  static ssize_t (*real)(int, const void *, size_t, off64_t);
  if (real == NULL) real = dlsym(RTLD_NEXT, "pwrite64");
  long number = 0;
  if (fault(fd, "fail-write", &number) && spend("fail-write", number)) {
    errno = EIO;
    return -1;
  }
  return real(fd, bytes, count, offset);
}
ssize_t pwrite(int fd, const void *bytes, size_t count, off_t offset) {
  return pwrite64(fd, bytes, count, offset);
}
