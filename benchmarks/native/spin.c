/* A fixed piece of work, about 40 ms: how fast this CPU is right now. Prints the ms
 * of CPU time it took. On a shared host the speed of a virtual CPU changes with what
 * runs on the other half of its core, and no counter in the guest shows it. */
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
static unsigned char buf[1 << 19];
static uint32_t next[1 << 16];
int main(void) {
  struct timespec a, b;
  uint64_t h = 1469598103934665603ULL, acc = 0;
  for (unsigned i = 0; i < sizeof buf; i++) buf[i] = (unsigned char)(i * 2654435761u >> 24);
  for (uint32_t i = 0; i < 1 << 16; i++) next[i] = (i * 40503u + 12345u) & 0xffff;   /* full-period walk */
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &a);
  for (int r = 0; r < 40; r++) {
    for (unsigned i = 0; i < sizeof buf; i++) {            /* branchy byte scan, like a parser */
      unsigned char c = buf[i];
      if (c == '"' || c == '\\') h = (h ^ c) * 1099511628211ULL;
      else if (c < 32) acc += c;
      else h += c;
    }
    uint32_t p = (uint32_t)h & 0xffff;
    for (int i = 0; i < 100000; i++) p = next[p] ^ (uint32_t)(acc & 1);   /* dependent loads */
    acc += p;
    memmove(buf + 1, buf, sizeof buf - 1);
  }
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &b);
  printf("%.3f\n", (b.tv_sec - a.tv_sec) * 1e3 + (b.tv_nsec - a.tv_nsec) / 1e6);
  volatile uint64_t sink = h ^ acc; (void)sink;
  return 0;
}
