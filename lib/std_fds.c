/* SPDX-License-Identifier: BSD-3-Clause */
#include "std_fds.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

bool mqsync_std_fds_hold(void)
{
    /* the wrong way round, so that nobody takes what goes nowhere for printed */
    static const int modes[] = {[STDIN_FILENO] = O_WRONLY, [STDOUT_FILENO] = O_RDONLY, [STDERR_FILENO] = O_RDONLY};

    /* open takes the lowest that is free: those below have been seen to */
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF && open("/dev/null", modes[fd]) < 0)
            return false;
    return true;
}
