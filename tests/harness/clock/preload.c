// The clocks of one program: this machine's, moved by the seconds in the file $OWN_CLOCKS. The first of its two numbers is
// for the wall clock, the other one for the time since the boot, as after a suspension.
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t *ahead;

__attribute__((constructor)) static void begin(void) {
  int file = open(getenv("OWN_CLOCKS"), O_RDONLY | O_CLOEXEC);
  void *mapped = mmap(NULL, 2 * sizeof *ahead, PROT_READ, MAP_SHARED, file, 0);
  close(file);
  if (mapped == MAP_FAILED) abort();
  ahead = mapped;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
  int failed = syscall(SYS_clock_gettime, clock, now);
  if (failed || !ahead) return failed;
  if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE) now->tv_sec += ahead[0];
  if (clock == CLOCK_BOOTTIME) now->tv_sec += ahead[1];
  return 0;
}
