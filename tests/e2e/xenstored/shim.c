/* Lets Debian's xenstored run where there is no Xen: preloaded, it stands in for the libraries that would talk to the
 * hypervisor. Domains are all alive, until a file dead-<domain> appears in $PCIDEVS_SHIM and the daemon gets SIGUSR1, which
 * stands for the hypervisor's notice that some domain has died.
 *
 *   cc -shared -fPIC -o xenstored-shim.so xenstored-shim.c
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

static int a_handle;
static int notices = -1;
static int ports = 100;

static void notice(int signal)
{
	uint64_t one = 1;
	ssize_t written = write(notices, &one, sizeof one);
	(void)signal, (void)written;
}

__attribute__((constructor)) static void begin(void)
{
	struct sigaction action = { .sa_handler = notice, .sa_flags = SA_RESTART };
	sigaction(SIGUSR1, &action, NULL);
}

/* libxenctrl: the list of domains. Asked for one that is gone it answers with the next. */
void *xc_interface_open(void *l, void *d, unsigned f) { (void)l, (void)d, (void)f; return &a_handle; }
int xc_interface_close(void *x) { (void)x; return 0; }
int xc_domain_getinfo(void *x, uint32_t first, unsigned most, uint32_t *info)
{
	char dead[512];
	const char *folder = getenv("PCIDEVS_SHIM");
	(void)x, (void)most;
	snprintf(dead, sizeof dead, "%s/dead-%u", folder ? folder : "", first);
	/* domain, security label, flags such as "dying" */
	info[0] = access(dead, F_OK) == 0 ? first + 1 : first;
	info[1] = info[2] = 0;
	return 1;
}

/* libxenevtchn: port 1 is the notice. */
static int notice_fd(void)
{
	if (notices < 0)
		notices = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	return notices;
}
void *xenevtchn_open(void *l, unsigned f) { (void)l, (void)f; notice_fd(); return &a_handle; }
void *xenevtchn_fdopen(void *l, int fd, unsigned f) { (void)l, (void)f; notices = fd; return &a_handle; }
int xenevtchn_close(void *x) { (void)x; return 0; }
int xenevtchn_fd(void *x) { (void)x; return notice_fd(); }
int xenevtchn_notify(void *x, uint32_t p) { (void)x, (void)p; return 0; }
int xenevtchn_bind_interdomain(void *x, uint32_t d, uint32_t p) { (void)x, (void)d, (void)p; return ports++; }
int xenevtchn_bind_virq(void *x, unsigned v) { (void)x, (void)v; return 1; }
int xenevtchn_unbind(void *x, uint32_t p) { (void)x, (void)p; return 0; }
int xenevtchn_unmask(void *x, uint32_t p) { (void)x, (void)p; return 0; }
int xenevtchn_pending(void *x)
{
	uint64_t count;
	ssize_t got = read(notice_fd(), &count, sizeof count);
	(void)x, (void)got;
	return 1;
}

/* libxengnttab: a guest's ring is a page of our own, empty for ever. */
void *xengnttab_open(void *l, unsigned f) { (void)l, (void)f; return &a_handle; }
int xengnttab_close(void *x) { (void)x; return 0; }
int xengnttab_set_max_grants(void *x, uint32_t n) { (void)x, (void)n; return 0; }
void *xengnttab_map_grant_ref(void *x, uint32_t d, uint32_t r, int p)
{
	(void)x, (void)d, (void)r, (void)p;
	return mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
}
int xengnttab_unmap(void *x, void *page, uint32_t n) { (void)x; return munmap(page, 4096UL * n); }

/* The kernel's files that name the host's own ring. */
static int kernel_file(const char *path)
{
	int fd = -1;
	if (!strcmp(path, "/proc/xen/xsd_port")) {
		fd = memfd_create("port", 0);
		if (write(fd, "1", 1) != 1 || lseek(fd, 0, SEEK_SET) != 0)
			abort();
	} else if (!strcmp(path, "/proc/xen/xsd_kva")) {
		fd = memfd_create("page", 0);
		if (ftruncate(fd, 4096) != 0)
			abort();
	}
	return fd;
}

typedef int (*opener)(const char *, int, ...);

static int open_as(const char *symbol, const char *path, int flags, mode_t mode)
{
	int fd = kernel_file(path);
	return fd >= 0 ? fd : ((opener)dlsym(RTLD_NEXT, symbol))(path, flags, mode);
}

int open(const char *path, int flags, ...)
{
	va_list rest;
	va_start(rest, flags);
	mode_t mode = va_arg(rest, mode_t);
	va_end(rest);
	return open_as("open", path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
	va_list rest;
	va_start(rest, flags);
	mode_t mode = va_arg(rest, mode_t);
	va_end(rest);
	return open_as("open64", path, flags, mode);
}
