// SPDX-License-Identifier: BSD-3-Clause
// A disk that is slow, and one that is full.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { Broker, temporaryDirectory } from '../lib/broker.mjs';

const slowsync = process.env.MQSYNC_SLOWSYNC;
const SYNC_MS = 1500;

/** The longest a ping-like message over an unrelated topic takes while `busy` runs. */
async function longestEcho(client, busy) {
    let longest = 0;
    let over = false;
    const work = busy().finally(() => { over = true; });
    await client.subscribe('elsewhere/echo');
    while (!over) {
        const start = process.hrtime.bigint();
        await client.publish('elsewhere/echo', 'x', { qos: 0 });
        await client.other((m) => m.topic === 'elsewhere/echo');
        longest = Math.max(longest, Number(process.hrtime.bigint() - start) / 1e6);
    }
    await work;
    return longest;
}

test(`a sync that takes ${SYNC_MS} ms holds up nobody with durability process`, async (t) => {
    assert.ok(slowsync && fs.existsSync(slowsync), 'MQSYNC_SLOWSYNC names the preloaded library');
    const env = { LD_PRELOAD: path.resolve(slowsync), MQSYNC_SYNC_MS: String(SYNC_MS) };
    for (const durability of ['process', 'power']) {
        const broker = await Broker.start({ config: { durability, collections: { '*': {} } }, env });
        try {
            const writer = await broker.client();
            const other = await broker.client();
            let slowestWrite = 0;
            const longest = await longestEcho(other, async () => {
                for (let i = 0; i < (durability === 'process' ? 250 : 3); i++) {
                    const start = Date.now();
                    await writer.short('c', `r${i % 50}`, 'insert', { i });
                    slowestWrite = Math.max(slowestWrite, Date.now() - start);
                    await new Promise((resolve) => setTimeout(resolve, durability === 'process' ? 10 : 0));
                }
            });
            t.diagnostic(`durability ${durability}: longest echo on another topic ${longest.toFixed(1)} ms, slowest write ${slowestWrite} ms, sync ${SYNC_MS} ms`);
            if (durability === 'process') {
                // Not a speed: had the broker's thread waited for one sync only, both would be above its length.
                assert.ok(longest < SYNC_MS * 0.8, `an unrelated message took ${longest} ms`);
                assert.ok(slowestWrite < SYNC_MS * 0.8, `a write took ${slowestWrite} ms`);
            } else {
                assert.ok(slowestWrite >= SYNC_MS, `the slow disk is not in the way of durability power: ${slowestWrite} ms`);
            }
        } finally {
            await broker.stop();
        }
    }
});

/** A small file system of its own; undefined where that is not allowed. */
function smallDisk(megabytes) {
    const directory = temporaryDirectory();
    const mounted = spawnSync('mount', ['-t', 'tmpfs', '-o', `size=${megabytes}m`, 'tmpfs', directory]);
    return mounted.status === 0 ? directory : undefined;
}

// 14 MB are full before the first changes are moved into LMDB, of 24 MB it is a later move that fails
for (const megabytes of [14, 24])
    test(`a full disk of ${megabytes} MB is SERVER_ERROR, loses nothing, and writing goes on when there is room`, (t) => fillUp(t, megabytes));

async function fillUp(t, megabytes) {
    const disk = smallDisk(megabytes);
    if (!disk) {
        t.skip('needs the right to mount a tmpfs');
        return;
    }
    const broker = new Broker({ config: { collections: { '*': {} } } });
    broker.database = path.join(disk, 'db');
    try {
        await broker.start();
        const writer = await broker.client({ version: 5 });
        const kept = new Map();
        const fill = 'x'.repeat(20_000);
        let refusedAt;
        for (let i = 0; i < 3000 && refusedAt === undefined; i++) {
            const code = await writer.short('c', `r${i}`, 'insert', { i, fill });
            if (code === 0) {
                kept.set(`r${i}`, i);
            } else {
                const error = await writer.answer('error');
                assert.equal(error.code, 'SERVER_ERROR', JSON.stringify(error));
                refusedAt = i;
            }
        }
        t.diagnostic(`refused after ${kept.size} records of 20 kB`);
        assert.ok(refusedAt > 100, `refused at write ${refusedAt}`);
        // still there: reading, other topics, and after a kill all that was acknowledged
        await writer.settle('c');
        const check = async () => {
            const reader = await broker.client({ version: 5 });
            const { records } = await reader.sync('c');
            for (const [id, i] of kept) {
                assert.equal(records.get(id)?.data.i, i, `record ${id}`);
            }
            await reader.close();
        };
        await check();
        await broker.kill();
        // a restart on the disk that is still full: other topics and reading work, changes are refused
        await broker.start();
        await check();
        const hopeful = await broker.client({ version: 5 });
        let stillFull = 0;
        for (let i = 4000; i < 5000 && !stillFull; i++) {
            stillFull = await hopeful.short('c', `r${i}`, 'insert', { i, fill });
            if (!stillFull) {
                kept.set(`r${i}`, i); // there was a little room in the log's files
            }
        }
        assert.ok(stillFull >= 0x80, 'refused');
        assert.equal((await hopeful.answer('error')).code, 'SERVER_ERROR');
        await broker.kill();
        const makeRoom = () => assert.equal(spawnSync('mount', ['-o', 'remount,size=200m', disk]).status, 0);
        makeRoom();
        await broker.start();
        await check();
        assert.equal(spawnSync('mount', ['-o', 'remount,size=60m', disk]).status, 0);
        const again = await broker.client({ version: 5 });
        let refused = 0;
        for (let i = 5000; i < 12000 && !refused; i++) {
            refused = await again.short('c', `r${i}`, 'insert', { i, fill });
            if (!refused) {
                kept.set(`r${i}`, i);
            }
        }
        assert.ok(refused, 'full a second time');
        makeRoom();
        // without a restart: writing goes on
        assert.equal(await again.short('c', 'after', 'insert', { i: 1 }), 0);
        kept.set('after', 1);
        await check();
        await broker.stop();
    } finally {
        await broker.kill();
        broker.removeDirectory();
        spawnSync('umount', ['-l', disk]);
        fs.rmSync(disk, { recursive: true, force: true });
    }
}
