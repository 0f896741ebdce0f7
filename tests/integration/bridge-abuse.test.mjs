// SPDX-License-Identifier: BSD-3-Clause
// Abuse that goes on for a while: bytes that trickle, frames that are none, bombs, storms, readers that stop. Each time the
// bridge stays up, its memory within the bound that the test names, and a neighbour's messages go on.
//
// MQSYNC_ROUNDS=n makes the storms n times as long.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { after, test } from 'node:test';
import { promisify } from 'node:util';
import zlib from 'node:zlib';
import { bridgeProgram, startBoth } from '../lib/bridge.mjs';
import { unique } from '../lib/client.mjs';
import { patience } from '../lib/env.mjs';
import { frame, handshake, rawSocket, upgraded } from '../lib/raw-ws.mjs';
import { poll } from '../lib/wait.mjs';

const MiB = 1 << 20;
const rounds = Number(process.env.MQSYNC_ROUNDS ?? 1);
// a sanitizer's build keeps what was freed, and needs more for everything
const sanitized = fs.readFileSync(bridgeProgram).includes('__asan_init');
const bound = (bytes) => (sanitized ? 600 * MiB : bytes);

const { broker, bridge, stop } = await startBoth({ limits: { maxRecordBytes: 65_536 }, bridge: { idleTimeoutSeconds: 3, sendQueueBytes: 262_144 } });
after(stop);

function memory() {
    const status = fs.readFileSync(`/proc/${bridge.process.pid}/status`, 'utf8');
    const field = (name) => Number(new RegExp(`${name}:\\s+(\\d+) kB`).exec(status)[1]) * 1024;
    return { now: field('VmRSS'), peak: field('VmHWM') };
}

/** Does that while two neighbours talk; their messages arrive, and the memory grows by no more than `bytes`, at no time. */
async function undisturbed(t, bytes, action) {
    const [ana, bo] = [await bridge.client(), await bridge.client()];
    const collection = unique('n');
    await ana.subscribe(collection);
    fs.writeFileSync(`/proc/${bridge.process.pid}/clear_refs`, '5'); // the peak begins anew
    const before = memory().now;
    const alive = setInterval(() => ana.socket.ping(), 500); // she only listens
    let over = false;
    let turns = 0;
    let worst = 0;
    const talk = (async () => {
        while (!over || turns === 0) {
            const start = Date.now();
            bo.send({ type: 'insert', collection, recordId: `r${turns % 10}`, data: { turns } });
            await ana.take((m) => m.data?.turns === turns);
            worst = Math.max(worst, Date.now() - start);
            turns++;
            await new Promise((resolve) => setTimeout(resolve, 5));
        }
    })();
    talk.catch(() => {});
    try {
        await action();
    } finally {
        over = true;
        clearInterval(alive);
    }
    await talk;
    const { peak } = memory();
    t.diagnostic(`${turns} round trips, the slowest ${worst} ms; memory ${Math.round(before / 1024)} kB, at most ${Math.round(peak / 1024)} kB`);
    assert.ok(peak - before <= bound(bytes), `memory grew by ${peak - before} bytes`);
    await Promise.all([ana.close(), bo.close()]);
}

const said = (socket) => socket.received().toString('latin1');
const closed = (socket, what) => socket.until(() => socket.destroyed, what);
const written = (socket, bytes) => new Promise((resolve) => socket.write(bytes, resolve) || socket.once('drain', resolve));

test('bytes that trickle and connections that say nothing are shown out', async (t) => {
    await undisturbed(t, 20 * MiB, async () => {
        const silent = Array.from({ length: 100 }, () => rawSocket(bridge));
        const headers = Array.from({ length: 100 }, () => rawSocket(bridge));
        const text = handshake(`/ws/${'c'.repeat(60)}`, `X-Slow: ${'x'.repeat(2000)}\r\n`);
        let at = 0;
        const timer = setInterval(() => {
            headers.forEach((socket) => !socket.destroyed && socket.write(text[at % text.length]));
            at++;
        }, 250);
        const halves = await Promise.all(Array.from({ length: 100 }, () => upgraded(bridge)));
        halves.forEach((socket) => socket.write(frame(1, '{"type":', { length: 1000 }).subarray(0, 12)));
        await Promise.all([...silent, ...headers].map((socket) => Promise.race([socket.gone, new Promise((resolve) => setTimeout(resolve, 25_000 * patience))])));
        clearInterval(timer);
        assert.equal([...silent, ...headers].filter((socket) => !socket.destroyed).length, 0, 'still there');
        await Promise.all(halves.map((socket) => closed(socket, 'half a frame to be closed')));
    });
});

test('a message in pieces of one byte is understood', async (t) => {
    await undisturbed(t, 5 * MiB, async () => {
        const socket = await upgraded(bridge);
        socket.setNoDelay();
        for (const byte of Buffer.concat([frame(1, '{"type":', { fin: false }), frame(9, 'x'), frame(0, '"ping"}')])) {
            await written(socket, Buffer.from([byte]));
        }
        await socket.until(() => said(socket).includes('"pong"'), 'the pong');
        socket.destroy();
    });
});

test('what RFC 6455 forbids closes that connection', async (t) => {
    const start = frame(1, 'x', { fin: false });
    const cases = {
        'a ping of 126 bytes': frame(9, 'x'.repeat(126)),
        'a close of 70000 bytes': frame(8, 'x'.repeat(70_000)),
        'a fragmented ping': frame(9, 'x', { fin: false }),
        'a fragmented close': frame(8, '', { fin: false }),
        'text inside a fragmented message': Buffer.concat([start, frame(1, 'x')]),
        'a continuation of nothing': frame(0, 'x'),
        'a continuation after the end': Buffer.concat([frame(1, '{"type":"ping"}'), frame(0, 'x')]),
        'a length of 2^63': Buffer.from([0x81, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 1, 2, 3, 4]),
        'bytes that inflate to nothing': frame(1, 'not deflated', { rsv: 4 }),
        ...Object.fromEntries([3, 4, 5, 6, 7, 11, 12, 13, 14, 15].map((opcode) => [`opcode ${opcode}`, frame(opcode, 'x')])),
        ...Object.fromEntries([1, 2, 3, 5, 6, 7].map((rsv) => [`reserved bits ${rsv}`, frame(1, 'x', { rsv })])),
    };
    await undisturbed(t, 10 * MiB, async () => {
        for (const [what, bytes] of Object.entries(cases)) {
            const more = what.includes('inflate') ? 'Sec-WebSocket-Extensions: permessage-deflate\r\n' : '';
            const socket = await upgraded(bridge, more);
            const start = socket.received().length;
            socket.write(bytes);
            // told so, or closed at once
            await socket.until(() => socket.destroyed || socket.received().subarray(start).includes(0x88), what);
            assert.ok(!said(socket).includes('"pong"') || what.includes('after the end'), what);
            socket.destroy();
        }
    });
});

test('close frames of every kind', async (t) => {
    await undisturbed(t, 5 * MiB, async () => {
        const codes = [0, 1, 999, 1000, 1004, 1005, 1006, 1012, 1015, 1016, 2999, 3000, 4999, 5000, 65_535];
        const bodies = codes.map((code) => Buffer.from([code >> 8, code & 255]));
        bodies.push(Buffer.alloc(0), Buffer.from([3]), Buffer.from([3, 0xE8, 0xFF, 0xFE]), Buffer.concat([Buffer.from([3, 0xE8]), Buffer.alloc(123, 0x61)]));
        for (const body of bodies) {
            const socket = await upgraded(bridge);
            const start = socket.received().length;
            socket.write(frame(8, body));
            await socket.until(() => socket.destroyed || socket.received()[start] === 0x88, `an answer to close ${body.toString('hex')}`);
            await closed(socket, `the end after close ${body.toString('hex')}`);
        }
    });
});

test('frames without a mask: the limits hold for them as well', async (t) => {
    await undisturbed(t, 10 * MiB, async () => {
        const socket = await upgraded(bridge);
        socket.write(frame(1, '{"type":"ping"}', { masked: false }));
        await socket.until(() => said(socket).includes('"pong"') || socket.destroyed, 'a pong or the end');
        socket.destroy();
        // the long form of the length 0, and then no end
        for (const head of [[0x81, 126, 0, 0], [0x81, 127, 0, 0, 0, 0, 0, 0, 0, 0], [0x01, 126, 0, 0]]) {
            const endless = await upgraded(bridge);
            endless.write(Buffer.from(head));
            const chunk = Buffer.alloc(65_536, 0x78);
            for (let i = 0; i < 1000 && !endless.destroyed; i++) {
                await Promise.race([written(endless, chunk), endless.gone]);
            }
            await closed(endless, `an endless frame after ${head}`);
        }
    });
});

test('fragments without end: empty ones, small ones', async (t) => {
    await undisturbed(t, 10 * MiB, async () => {
        const socket = await upgraded(bridge);
        socket.write(frame(1, '{"type":"pi', { fin: false }));
        const many = Buffer.concat(Array.from({ length: 10_000 }, () => frame(0, '', { fin: false })));
        for (let i = 0; i < 20 * rounds; i++) {
            await written(socket, many);
        }
        socket.write(frame(0, 'ng"}'));
        await socket.until(() => said(socket).includes('"pong"'), 'the pong after 200,000 empty fragments');
        socket.write(frame(1, '', { fin: false }));
        const small = Buffer.concat(Array.from({ length: 10_000 }, () => frame(0, 'x', { fin: false })));
        for (let i = 0; i < 100 && !socket.destroyed; i++) {
            await Promise.race([written(socket, small), socket.gone]);
        }
        await closed(socket, 'a message of 1,000,000 fragments');
        assert.match(said(socket), /INVALID_MESSAGE/);
    });
});

test('a flood of pings and pongs', async (t) => {
    await undisturbed(t, 10 * MiB, async () => {
        const socket = await upgraded(bridge);
        const many = Buffer.concat(Array.from({ length: 5000 }, (_, i) => frame(9 + i % 2, 'x'.repeat(i % 126))));
        for (let i = 0; i < 40 * rounds; i++) {
            await written(socket, many);
        }
        socket.write(frame(1, '{"type":"ping"}'));
        await socket.until(() => said(socket).includes('"pong"'), 'the pong');
        socket.destroy();
    });
});

test('UTF-8 that is none, whole and cut by fragments', async (t) => {
    await undisturbed(t, 5 * MiB, async () => {
        const good = Buffer.from('{"type":"ping","x":"é€𝄞"}');
        for (let cut = 1; cut < good.length; cut++) {
            const socket = await upgraded(bridge);
            socket.write(Buffer.concat([frame(1, good.subarray(0, cut), { fin: false }), frame(0, good.subarray(cut))]));
            await socket.until(() => said(socket).includes('"pong"'), `a character cut at ${cut}`);
            socket.destroy();
        }
        for (const bad of ['ff', 'c0af', 'eda080', 'f4908080', 'e282', '80']) {
            const text = Buffer.concat([Buffer.from('{"type":"ping","x":"'), Buffer.from(bad, 'hex'), Buffer.from('"}')]);
            for (const cut of [0, 20, 21]) {
                const socket = await upgraded(bridge);
                socket.write(cut ? Buffer.concat([frame(1, text.subarray(0, cut), { fin: false }), frame(0, text.subarray(cut))]) : frame(1, text));
                await socket.until(() => said(socket).includes('INVALID_MESSAGE') || socket.destroyed, `${bad} to be refused`);
                assert.ok(!said(socket).includes('"pong"'));
                socket.destroy();
            }
        }
    });
});

test('a gigabyte of zeros, compressed', async (t) => {
    const part = await promisify(zlib.deflateRaw)(Buffer.alloc(16 * MiB), { finishFlush: zlib.constants.Z_SYNC_FLUSH, level: 9 });
    await undisturbed(t, 10 * MiB, async () => {
        for (let i = 0; i < 3; i++) {
            const socket = await upgraded(bridge, 'Sec-WebSocket-Extensions: permessage-deflate\r\n');
            assert.match(said(socket), /permessage-deflate/);
            socket.write(frame(1, part, { fin: false, rsv: 4 }));
            for (let k = 1; k < 64 && !socket.destroyed; k++) {
                await Promise.race([written(socket, frame(0, part, { fin: k === 63 })), socket.gone]);
            }
            await closed(socket, 'the bomb to be closed');
            const answer = socket.received().subarray(socket.received().indexOf('\r\n\r\n') + 4);
            assert.match(String(zlib.inflateRawSync(Buffer.concat([answer.subarray(2, 2 + answer[1]), Buffer.from([0, 0, 0xFF, 0xFF])]),
                { finishFlush: zlib.constants.Z_SYNC_FLUSH })), /INVALID_MESSAGE/);
        }
    });
});

/** Sends each, compressed as one connection does it; how many bytes of the last are left out. */
async function pings(socket, texts, cut = 0) {
    const deflate = zlib.createDeflateRaw({ level: 9 });
    for (const [i, text] of texts.entries()) {
        const parts = [];
        deflate.on('data', (part) => parts.push(part));
        deflate.write(text);
        await new Promise((resolve) => deflate.flush(zlib.constants.Z_SYNC_FLUSH, resolve));
        deflate.removeAllListeners('data');
        const bytes = Buffer.concat(parts);
        socket.write(frame(1, bytes.subarray(0, bytes.length - 4 - (i + 1 < texts.length ? 0 : cut)), { rsv: 4 }));
    }
}

test('compressed messages that are broken off where the buffer for them ends', async (t) => {
    const text = (n) => `{"type":"ping","x":"${Buffer.from(Array.from({ length: 600 }, (_, i) => i * i * 7 % 251)).toString('base64').repeat(3).slice(0, n - 22)}"}`;
    const compressed = 'Sec-WebSocket-Extensions: permessage-deflate\r\n';
    await undisturbed(t, 10 * MiB, async () => {
        for (const n of [1030, 1100, 1200, 1279, 2100]) {
            for (let cut = 1; cut < 10; cut++) {
                const socket = await upgraded(bridge, compressed);
                await pings(socket, [text(n), text(n)], cut);
                socket.end(frame(8, ''));
                await closed(socket, `what was cut by ${cut} bytes to be closed`);
            }
        }
        for (let n = 1020; n < 1030; n++) {
            const socket = await upgraded(bridge, compressed);
            const begun = socket.received().length;
            await pings(socket, [text(n), text(n + 1024), text(n)]);
            // each pong but the first is shorter than it, and none is of less than a header and a byte
            await socket.until(() => socket.received().subarray(begun).filter((byte) => byte === 0xC1).length >= 3, `three pongs for ${n} bytes`);
            socket.destroy();
        }
    });
});

test('a compressed message that says it is the last one is not', async () => {
    const socket = await upgraded(bridge, 'Sec-WebSocket-Extensions: permessage-deflate\r\n');
    const begun = socket.received().length;
    const final = Buffer.concat([zlib.deflateRawSync('{"type":"ping"}'), Buffer.from([0])]);
    socket.write(Buffer.concat([frame(1, final, { rsv: 4 }), frame(1, final, { rsv: 4 })]));
    await socket.until(() => socket.received().subarray(begun).filter((byte) => byte === 0xC1).length >= 2, 'two pongs');
    socket.destroy();
});

test('a thousand connections a second', async (t) => {
    const seconds = 5 * rounds;
    let opened = 0;
    await undisturbed(t, 40 * MiB, async () => {
        const start = Date.now();
        const pending = new Set();
        const one = async () => {
            const socket = rawSocket(bridge, handshake(opened % 3 ? '/ws' : '/ws/a,b'));
            await socket.until(() => socket.received().length > 0 || socket.destroyed, 'an answer');
            opened += socket.received().includes('101 ');
            socket[opened % 2 ? 'resetAndDestroy' : 'destroy']();
        };
        for (let made = 0; Date.now() - start < seconds * 1000;) {
            for (; made < (Date.now() - start) && pending.size < 200; made++) {
                const job = one().finally(() => pending.delete(job));
                pending.add(job);
            }
            await new Promise((resolve) => setImmediate(resolve));
        }
        await Promise.all(pending);
        t.diagnostic(`${Math.round(opened / (Date.now() - start) * 1000)} connections a second`);
    });
    assert.ok(opened > 100 * seconds, `${opened} connections in ${seconds} s`);
    await poll(async () => await bridge.metric('connections') === 0, 'the bridge to have noticed');
});

test('thousands of subscriptions on one connection', async (t) => {
    await undisturbed(t, 20 * MiB, async () => {
        const client = await bridge.client();
        const names = Array.from({ length: 3000 }, (_, i) => `many${i}`);
        client.sendTogether(names.map((collection) => ({ type: 'subscribe', collection })));
        let refused = 0;
        for (let i = 0; i < names.length; i++) {
            const answer = await client.take((m) => m.type === 'subscribed' || m.type === 'error');
            refused += answer.code === 'RATE_LIMIT_EXCEEDED';
        }
        assert.equal(refused, 2000);
        const other = await bridge.client();
        await other.write('insert', 'many999', 'r', {});
        await client.take('insert');
        for (let round = 0; round < 5; round++) {
            client.sendTogether(names.map((collection) => ({ type: round % 2 ? 'subscribe' : 'unsubscribe', collection })));
        }
        await client.rest();
        assert.equal(await bridge.metric('subscriptions'), 1);
        const path = await bridge.client(`/ws/${names.join(',')}`);
        assert.equal(path.refused?.status ?? 'closed', path.refused ? 404 : 'closed');
        await Promise.all([client.close(), other.close()]);
    });
});

test('JSON that is deep, wide or says everything twice', async (t) => {
    await undisturbed(t, 20 * MiB, async () => {
        const client = await bridge.client();
        const wide = Array.from({ length: 3000 }, (_, i) => `"k${i}":${i}`).join();
        const texts = [`{"type":"insert","collection":"j","recordId":"r","data":${'{"a":'.repeat(15_000)}1${'}'.repeat(15_000)}}`,
            `{"type":"insert","collection":"j","recordId":"r","data":{"a":${'['.repeat(30_000)}${']'.repeat(30_000)}}}`,
            `{"type":"insert","collection":"j","recordId":"r","data":{${wide},"k0":1}}`,
            `{"type":"ping","type":"ping"}`, `{${'"type":"ping",'.repeat(4000)}"type":"ping"}`];
        for (let i = 0; i < 20; i++) {
            for (const text of texts) {
                client.send(text);
                assert.equal((await client.take('error')).code, 'INVALID_MESSAGE');
            }
        }
        client.send(`{"type":"insert","collection":"j","recordId":"r","data":{${wide}},"metadata":{"mutationId":"m"}}`);
        await client.take('ack');
        await client.close();
    });
});

test('a reader that stops while 100 MB go by costs its queue, and misses nothing', async (t) => {
    const collection = unique('c');
    const device = await broker.client();
    const text = 'x'.repeat(50_000);
    const records = 20;
    const total = 2000 * rounds;
    // a view of the database takes what the broker has written in the last second
    await undisturbed(t, 40 * MiB, async () => {
        const slow = await Promise.all([bridge.client('/ws', { perMessageDeflate: false }), bridge.client(`/ws/${collection}`)]);
        const { seq } = await slow[0].subscribe(collection);
        await slow[1].subscribed(collection);
        slow.forEach((client) => client.socket.pause());
        // they read nothing, and are there
        const alive = setInterval(() => slow.forEach((client) => client.socket.ping()), 500);
        t.after(() => clearInterval(alive));
        for (let i = 1; i <= total; i++) {
            await device.short(collection, `r${i % records}`, i <= records ? 'insert' : 'update', { i, text });
        }
        await poll(async () => await bridge.metric('events_total') >= total, 'the events to have come');
        assert.ok(await bridge.metric('queue_bytes') <= 2 * (262_144 + 2 * 65_536), 'two queues');
        slow.forEach((client) => client.socket.resume());
        const expected = Array.from({ length: records }, (_, k) => total - (total - k) % records).sort((a, b) => a - b);
        for (const client of slow) {
            const state = new Map();
            const told = (m) => [...(m.data?.records ?? []), ...(m.recordId ? [{ id: m.recordId, data: m.data }] : [])];
            while (![...state.values()].some((i) => i === total)) {
                told(await client.next()).forEach((r) => state.set(r.id, r.data.i));
            }
            assert.deepEqual([...state.values()].sort((a, b) => a - b), expected);
            client.socket.terminate();
        }
        assert.ok(seq >= 0);
    });
});
