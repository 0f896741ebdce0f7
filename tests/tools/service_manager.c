/* SPDX-License-Identifier: BSD-3-Clause */
/* Plays systemd for one service, on machines that have none running:
 *
 *     service_manager [tcp] [unix:PATH] PROGRAM ARGUMENT...
 *
 * Makes the sockets that are named, passes them on, and prints on standard output what the service says of itself, a
 * line each. SIGHUP and SIGTERM go to the service; its exit status becomes this program's. WATCHDOG_USEC is the
 * caller's to set. */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

enum { FIRST = 3 };

static int fail(const char *what)
{
    perror(what);
    exit(2);
}

static int listen_on(const char *what)
{
    struct sockaddr_in tcp = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr_un path = {.sun_family = AF_UNIX};
    int fd = socket(*what == 't' ? AF_INET : AF_UNIX, SOCK_STREAM, 0);

    if (*what == 'u')
        strncpy(path.sun_path, what + strlen("unix:"), sizeof(path.sun_path) - 1);
    if (fd < 0 ||
        (*what == 't' ? bind(fd, (struct sockaddr *)&tcp, sizeof(tcp))
                      : bind(fd, (struct sockaddr *)&path, sizeof(path))) < 0 ||
        listen(fd, 64) < 0)
        fail(what);
    return fd;
}

/* An abstract address that the kernel chooses; its name goes into the environment as systemd writes it. */
static int notify_socket(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    socklen_t n = sizeof(address);
    char name[sizeof(address.sun_path) + 2] = "@";
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    if (fd < 0 || bind(fd, (struct sockaddr *)&address, offsetof(struct sockaddr_un, sun_path)) < 0 ||
        getsockname(fd, (struct sockaddr *)&address, &n) < 0)
        fail("notify socket");
    memcpy(name + 1, address.sun_path + 1, n - offsetof(struct sockaddr_un, sun_path) - 1);
    setenv("NOTIFY_SOCKET", name, 1);
    return fd;
}

static void become_service(char **command, const int *sockets, int n)
{
    char text[16];
    sigset_t none;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (int i = 0; i < n; i++)
        if (sockets[i] != FIRST + i && dup2(sockets[i], FIRST + i) < 0)
            fail("dup2");
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    snprintf(text, sizeof(text), "%d", (int)getpid());
    setenv("LISTEN_PID", text, 1);
    setenv("WATCHDOG_PID", text, 1);
    snprintf(text, sizeof(text), "%d", n);
    setenv("LISTEN_FDS", text, 1);
    execvp(command[0], command);
    fail(command[0]);
}

static void print(int notify)
{
    char text[4096];
    ssize_t n = recv(notify, text, sizeof(text), MSG_DONTWAIT);

    for (; n >= 0; n = recv(notify, text, sizeof(text), MSG_DONTWAIT))
        printf("%.*s\n", (int)n, text);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    int sockets[8], n = 0, at = 1, notify, status = 0;
    sigset_t signals;

    for (; at < argc && n < 8 && (strcmp(argv[at], "tcp") == 0 || strncmp(argv[at], "unix:", 5) == 0); at++)
        sockets[n++] = listen_on(argv[at]);
    if (at == argc)
        return 2;
    notify = fcntl(notify_socket(), F_DUPFD_CLOEXEC, 20);
    sigemptyset(&signals);
    sigaddset(&signals, SIGHUP);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGCHLD);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    struct pollfd wait_for[2] = {{notify, POLLIN, 0}, {signalfd(-1, &signals, SFD_CLOEXEC), POLLIN, 0}};
    pid_t service = fork();
    if (service == 0)
        become_service(argv + at, sockets, n);
    while (poll(wait_for, 2, -1) >= 0 || errno == EINTR) {
        struct signalfd_siginfo info;
        print(notify);
        if (!wait_for[1].revents || read(wait_for[1].fd, &info, sizeof(info)) != (ssize_t)sizeof(info))
            continue;
        if (info.ssi_signo != SIGCHLD)
            kill(service, (int)info.ssi_signo);
        else if (waitpid(service, &status, WNOHANG) == service)
            break;
    }
    print(notify);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
