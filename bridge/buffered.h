/* SPDX-License-Identifier: BSD-3-Clause */
/* One descriptor whose read() and write() go through buffers in this process, whoever calls them. libmosquitto reads a
 * packet in three or four pieces, most of one byte, and writes each packet by itself; for the bridge's one connection
 * to the broker, over which everything passes, these calls were a quarter of its CPU time. It has no hook for that, so
 * this file takes the place of the C library's read(), write() and close(), which every program may; they leave all
 * other descriptors alone. A library that comes to call something else (recv(), writev()) is no worse off than without.
 *
 * All of it in the thread that reads and writes the descriptor. Others may read, write and close other descriptors. */
#ifndef MQSYNC_BRIDGE_BUFFERED_H
#define MQSYNC_BRIDGE_BUFFERED_H

#include <stdbool.h>
#include <stddef.h>

/* This descriptor from now on, which is non-blocking; -1: none. What the one before had not written or read is
 * forgotten. One that is closed, by whomever, is written to the end as far as it goes, and then no longer buffered. */
void mqsync_buffered_attach(int fd);

/* A new turn of the loop: the next read() that finds the buffer empty asks the system, once. Those after that get
 * EAGAIN, so that a peer that never pauses does not keep the caller for ever. */
void mqsync_buffered_turn(void);

/* Bytes that can be read without asking the system. */
size_t mqsync_buffered_input(void);

/* Writes what has been gathered. False: the descriptor does not take it all now; again when it is writable. What a
 * broken connection does not take is forgotten: reading tells. */
bool mqsync_buffered_flush(void);

#endif
