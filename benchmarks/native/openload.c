/* Open-loop load client: requests fall due at a fixed rate, whether or not earlier ones were answered.
 *
 *   openload -p PORT -u PATH -b BODYFILE [-H 'k: v']... -c CONNS -r PER_SECOND -d SECONDS [-w WARM_SECONDS]
 *
 * One thread, epoll, HTTP/1.1 keep-alive, 127.0.0.1 only. All connections are opened first. Request i is due
 * at t0 + i / rate and goes out on the connection that was idle longest; when all are busy it waits for one.
 * Its latency counts from when it was due, so a stall is charged to every request it held up. What is still
 * unanswered DRAIN_NS after the last was due counts with its age. The first WARM_SECONDS are left out of
 * the latencies. Prints one JSON object.
 *
 *   p*_us     due -> answered with 200, to the last byte
 *   late_*    due -> sent: what the client itself, or the want of an idle connection, added
 *   served_*  sent -> answered with 200;  refused_*  sent -> answered with anything else
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define DRAIN_NS 1000000000LL
#define CONNECT_NS 3000000000LL
#define RETRY_NS 20000000LL
enum { P_BROKEN, P_CONNECT, P_IDLE, P_HEAD, P_BODY };
enum { F_CHUNKED, F_LENGTH, F_CLOSE };

typedef struct {
  int fd, phase, framing, reqpos, served, close_after, status;
  long request, left;                                    /* request: its number; it says when it was due */
  int ck, cklen; char ckline[32];                        /* de-chunking */
  int64_t wake, sent;
  int hlen; char head[16384];
} conn;

typedef struct { uint32_t *v; long n, cap; double sum; } samples;
static void add(samples *s, int64_t ns) {
  if (ns < 0) ns = 0;
  if (s->n == s->cap) { s->cap = s->cap ? s->cap * 2 : 65536; s->v = realloc(s->v, s->cap * sizeof *s->v); }
  s->v[s->n++] = ns / 100 > UINT32_MAX ? UINT32_MAX : (uint32_t)(ns / 100);   /* 0.1 us units */
  s->sum += ns / 1000.0;
}
static int cmp(const void *a, const void *b) { uint32_t x = *(uint32_t *)a, y = *(uint32_t *)b; return x < y ? -1 : x > y; }
static double quantile(samples *s, double p) { return s->n ? s->v[(long)((s->n - 1) * p)] / 10.0 : 0.0; }

static int ep, port, nconn = 64;
static double rate = 500;
static const char *path = "/v1/chat/completions";
static char *req; static long reqlen;
static conn *cs;
static int *idle, idle_head, idle_n, broken;             /* ring of idle connections */
static int64_t t0, t_warm, t_end;
static long next_request, in_time, ok, bad_status, conn_errors, short_reads, reconnects, answered;
static int last_bad_status;
static samples latency, late, served, refused;

static int64_t now_ns(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec * 1000000000LL + t.tv_nsec; }
static int64_t due(long i) { return t0 + (int64_t)(i * 1e9 / rate); }
static void listen_for(conn *c, int op, int out) {
  struct epoll_event e = { .events = EPOLLIN | (out ? EPOLLOUT : 0), .data.ptr = c };
  epoll_ctl(ep, op, c->fd, &e);
}
static void shut(conn *c) {
  if (c->fd >= 0) close(c->fd);
  if (c->phase != P_BROKEN) broken++;
  c->fd = -1; c->phase = P_BROKEN; c->served = 0;
}
static void open_conn(conn *c) {
  int one = 1;
  struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
  c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  if (c->fd >= 0 && (!connect(c->fd, (void *)&a, sizeof a) || errno == EINPROGRESS)) {
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    broken--; c->phase = P_CONNECT;
    listen_for(c, EPOLL_CTL_ADD, 1);
    return;
  }
  conn_errors++; shut(c); c->wake = now_ns() + RETRY_NS;
}
static void fail(conn *c, long *counter) { (*counter)++; shut(c); c->request = -1; c->wake = now_ns() + RETRY_NS; }

static void push_request(conn *c) {
  while (c->reqpos < reqlen) {
    ssize_t w = send(c->fd, req + c->reqpos, reqlen - c->reqpos, MSG_NOSIGNAL);
    if (w < 0) { if (errno == EAGAIN) { listen_for(c, EPOLL_CTL_MOD, 1); return; } fail(c, &conn_errors); return; }
    c->reqpos += w;
    if (c->reqpos == reqlen && w < reqlen) listen_for(c, EPOLL_CTL_MOD, 0);
  }
}
static void send_request(conn *c, long i) {
  c->sent = now_ns(); c->request = i; c->phase = P_HEAD; c->hlen = c->reqpos = c->status = c->close_after = 0;
  push_request(c);
}
static void set_idle(conn *c) {
  c->phase = P_IDLE;
  if (c->request >= 0) { send_request(c, c->request); return; }   /* its connection had gone stale */
  idle[(idle_head + idle_n++) % nconn] = (int)(c - cs);
}
static void finish(conn *c, int64_t t) {
  answered++;
  if (t <= t_end) in_time++;
  if (due(c->request) >= t_warm) add(c->status == 200 ? &served : &refused, t - c->sent);
  if (c->status != 200) { bad_status++; last_bad_status = c->status; }
  else { ok++; if (due(c->request) >= t_warm) add(&latency, t - due(c->request)); }
  c->request = -1; c->served = 1;
  if (c->close_after) { shut(c); c->wake = 0; reconnects++; } else set_idle(c);
}

static char *header(conn *c, const char *name) {
  size_t n = strlen(name);
  for (char *l = strstr(c->head, "\r\n"); l; l = strstr(l, "\r\n")) {
    l += 2;
    if (!strncasecmp(l, name, n) && l[n] == ':') { l += n + 1; while (*l == ' ') l++; return l; }
  }
  return 0;
}
/* the end of the body is in these bytes */
static int body_ends(conn *c, char *p, long n) {
  if (c->framing == F_CLOSE) return 0;
  if (c->framing == F_LENGTH) { c->left -= n; return c->left <= 0; }
  while (n > 0) {
    if (c->ck == 1) {
      long k = n < c->left ? n : c->left;
      p += k; n -= k; c->left -= k;
      if (!c->left) c->ck = 2;
      continue;
    }
    char ch = *p++; n--;
    if (ch != '\n') { if (ch != '\r' && c->cklen < 31) c->ckline[c->cklen++] = ch; continue; }
    c->ckline[c->cklen] = 0; int len = c->cklen; c->cklen = 0;
    if (c->ck == 2) c->ck = 0;                                       /* CRLF after data */
    else if (c->ck == 0) { c->left = strtol(c->ckline, 0, 16); c->ck = c->left ? 1 : 3; }
    else if (len == 0) return 1;                                     /* end of trailers */
  }
  return 0;
}
static int head_done(conn *c, char **p, long *n) {
  int k = (int)sizeof c->head - 1 - c->hlen, before = c->hlen;
  if (k > *n) k = *n;
  memcpy(c->head + c->hlen, *p, k); c->hlen += k; c->head[c->hlen] = 0;
  char *e = memmem(c->head, c->hlen, "\r\n\r\n", 4), *v;
  if (!e) { if (c->hlen >= (int)sizeof c->head - 1) fail(c, &short_reads); return 0; }
  int length = e + 4 - c->head;
  e[2] = 0;
  c->status = atoi(c->head + 9);
  c->ck = c->cklen = 0; c->framing = F_CLOSE;
  if ((v = header(c, "transfer-encoding")) && !strncasecmp(v, "chunked", 7)) c->framing = F_CHUNKED;
  else if ((v = header(c, "content-length"))) { c->framing = F_LENGTH; c->left = atol(v); }
  if ((v = header(c, "connection")) && !strncasecmp(v, "close", 5)) c->close_after = 1;
  c->phase = P_BODY;
  *p += length - before; *n -= length - before;
  return 1;
}
static void on_read(conn *c) {
  static char rb[262144];
  ssize_t r = recv(c->fd, rb, sizeof rb, 0);
  int64_t t = now_ns();
  if (r < 0 && errno == EAGAIN) return;
  if (r <= 0) {
    if (r == 0 && c->phase == P_BODY && c->framing == F_CLOSE) { c->close_after = 1; finish(c, t); return; }
    if (c->phase == P_IDLE) {                                        /* closed between two requests: no error */
      for (int k = 0, n = idle_n; k < n; k++) {
        int i = idle[idle_head]; idle_head = (idle_head + 1) % nconn; idle_n--;
        if (cs + i != c) idle[(idle_head + idle_n++) % nconn] = i;
      }
      shut(c); c->wake = 0; reconnects++; return;
    }
    if (c->phase == P_HEAD && !c->hlen && c->served) { shut(c); c->wake = 0; reconnects++; return; }   /* stale: again */
    fail(c, &short_reads); return;
  }
  char *p = rb; long n = r;
  if (c->phase == P_IDLE) { fail(c, &short_reads); return; }         /* an answer nobody asked for */
  if (c->phase == P_HEAD && !head_done(c, &p, &n)) return;
  if (c->phase == P_BODY && body_ends(c, p, n)) finish(c, t);
}
static void on_event(conn *c, uint32_t events) {
  if (c->fd < 0) return;
  if (c->phase == P_CONNECT) {
    int err = 0; socklen_t n = sizeof err;
    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &err, &n);
    if (err) { conn_errors++; shut(c); c->wake = now_ns() + RETRY_NS; return; }
    if (events & EPOLLOUT) { listen_for(c, EPOLL_CTL_MOD, 0); set_idle(c); }
    return;
  }
  if ((events & EPOLLOUT) && c->phase == P_HEAD && c->reqpos < reqlen) push_request(c);
  if (c->fd >= 0 && (events & (EPOLLIN | EPOLLHUP | EPOLLERR))) on_read(c);
}
static void poll_until(int64_t when) {
  struct epoll_event ev[256];
  int64_t d = when - now_ns();
  if (broken && d > RETRY_NS) d = RETRY_NS;
  if (d < 0) d = 0;
  struct timespec ts = { d / 1000000000, d % 1000000000 };
  int n = epoll_pwait2(ep, ev, 256, &ts, 0);
  for (int i = 0; i < n; i++) on_event(ev[i].data.ptr, ev[i].events);
  if (broken) {
    int64_t t = now_ns();
    for (int i = 0; i < nconn; i++) if (cs[i].phase == P_BROKEN && cs[i].wake <= t) open_conn(&cs[i]);
  }
}
static void load(long total) {
  for (;;) {
    int64_t t = now_ns();
    while (next_request < total && idle_n && due(next_request) <= t) {
      conn *c = cs + idle[idle_head];
      idle_head = (idle_head + 1) % nconn; idle_n--;
      if (due(next_request) >= t_warm) add(&late, t - due(next_request));
      send_request(c, next_request++);
      t = now_ns();
    }
    long failed = conn_errors + short_reads;
    if (t >= t_end && (answered + failed >= total || t >= t_end + DRAIN_NS)) return;
    poll_until(next_request < total && idle_n ? due(next_request) : t + RETRY_NS);
  }
}
static void print_result(double seconds, long total) {
  long unanswered = 0;
  int64_t t = now_ns();
  for (int i = 0; i < nconn; i++) if (cs[i].request >= 0) { unanswered++; add(&latency, t - due(cs[i].request)); }
  for (long i = next_request; i < total; i++) { unanswered++; add(&latency, t - due(i)); add(&late, t - due(i)); }
  qsort(latency.v, latency.n, sizeof *latency.v, cmp);
  qsort(late.v, late.n, sizeof *late.v, cmp);
  printf("{\"seconds\":%.3f,\"rate\":%.1f,\"requests\":%ld,\"ok\":%ld,\"bad_status\":%ld,\"last_bad_status\":%d,\"unanswered\":%ld,"
    "\"conn_errors\":%ld,\"short_reads\":%ld,\"reconnects\":%ld,\"answered_per_s\":%.1f", seconds, rate, total, ok, bad_status,
    last_bad_status, unanswered, conn_errors, short_reads, reconnects, in_time / seconds);
  printf(",\"n\":%ld,\"p50_us\":%.1f,\"p90_us\":%.1f,\"p99_us\":%.1f,\"p999_us\":%.1f,\"max_us\":%.1f,\"mean_us\":%.1f",
    latency.n, quantile(&latency, .5), quantile(&latency, .9), quantile(&latency, .99), quantile(&latency, .999),
    quantile(&latency, 1), latency.n ? latency.sum / latency.n : 0);
  printf(",\"late_p50_us\":%.1f,\"late_p99_us\":%.1f", quantile(&late, .5), quantile(&late, .99));
  qsort(served.v, served.n, sizeof *served.v, cmp);
  qsort(refused.v, refused.n, sizeof *refused.v, cmp);
  printf(",\"served_p50_us\":%.1f,\"served_p99_us\":%.1f,\"served_max_us\":%.1f", quantile(&served, .5), quantile(&served, .99), quantile(&served, 1));
  printf(",\"refused_p50_us\":%.1f,\"refused_p99_us\":%.1f}\n", quantile(&refused, .5), quantile(&refused, .99));
}
int main(int argc, char **argv) {
  char hdrs[8192] = ""; const char *bodyf = 0; double secs = 5, warm = 0.5; int o;
  while ((o = getopt(argc, argv, "p:u:b:H:c:d:r:w:")) != -1) switch (o) {
    case 'p': port = atoi(optarg); break;
    case 'u': path = optarg; break;
    case 'b': bodyf = optarg; break;
    case 'H': if (strlen(hdrs) + strlen(optarg) > 8000) return 2; strcat(strcat(hdrs, optarg), "\r\n"); break;
    case 'c': nconn = atoi(optarg); break;
    case 'd': secs = atof(optarg); break;
    case 'r': rate = atof(optarg); break;
    case 'w': warm = atof(optarg); break;
    default: return 2;
  }
  if (!port || !bodyf || secs <= 0 || secs > 120 || nconn < 1 || nconn > 5000 || rate <= 0) { fprintf(stderr, "bad arguments\n"); return 2; }
  FILE *f = fopen(bodyf, "rb"); if (!f) { perror(bodyf); return 1; }
  fseek(f, 0, SEEK_END); long bl = ftell(f); rewind(f);
  req = malloc(bl + 16384);
  reqlen = sprintf(req, "POST %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUser-Agent: openload\r\nContent-Type: application/json\r\n%sContent-Length: %ld\r\n\r\n", path, port, hdrs, bl);
  if (fread(req + reqlen, 1, bl, f) != (size_t)bl) return 1;
  reqlen += bl; fclose(f);
  signal(SIGPIPE, SIG_IGN);
  prctl(PR_SET_TIMERSLACK, 1UL);           /* 50 us else, which would be in each latency */
  ep = epoll_create1(0);
  cs = calloc(nconn, sizeof *cs); idle = calloc(nconn, sizeof *idle);
  broken = nconn;
  for (int i = 0; i < nconn; i++) { cs[i].fd = -1; cs[i].request = -1; open_conn(&cs[i]); }
  for (int64_t begun = now_ns(); idle_n < nconn && now_ns() - begun < CONNECT_NS;) poll_until(now_ns() + RETRY_NS);
  if (!idle_n) { fprintf(stderr, "no connection to port %d\n", port); return 1; }
  conn_errors = 0;
  long total = (long)(rate * secs);
  t0 = now_ns() + 1000000; t_warm = t0 + (int64_t)(warm * 1e9); t_end = t0 + (int64_t)(secs * 1e9);
  load(total);
  print_result(secs, total);
  return 0;
}
