// SPDX-License-Identifier: BSD-3-Clause
// The bridge's limits: each is answered as documented, and logged with user and address.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import { createRequire } from 'node:module';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';
import { Bridge, token } from '../lib/bridge.mjs';
import { Broker } from '../lib/broker.mjs';
import { unique } from '../lib/client.mjs';
import { ctl, patience } from '../lib/env.mjs';
import { request } from '../lib/http.mjs';
import { poll } from '../lib/wait.mjs';

const WebSocket = createRequire(import.meta.url)('ws');
const secret = 'not very secret';
const broker = await Broker.start({ config: { trustedUsers: [] } });
after(() => broker.stop());
const keyFile = path.join(broker.directory, 'jwt.key');
fs.writeFileSync(keyFile, secret);
const withTokens = { auth: { jwt: { algorithm: 'HS256', keyFile } }, trustedUsers: ['bridge'] };
const ana = `/ws?token=${token(secret, { userId: 'ana' })}`;

async function start(t, config, options) {
    const bridge = await Bridge.start(broker, config, options);
    t.after(() => bridge.stop());
    return bridge;
}

/** Connections over TCP that send `text`, all of them open; `ended` tells which the server has closed. */
async function connections(t, bridge, n, text = '') {
    const sockets = await Promise.all(Array.from({ length: n }, () => new Promise((resolve, reject) => {
        const socket = net.connect(bridge.port, '127.0.0.1', () => resolve(socket));
        socket.on('error', reject);
        socket.text = '';
        socket.setEncoding('latin1');
        socket.on('data', (chunk) => {
            socket.text += chunk;
        });
        socket.ended = new Promise((end) => socket.on('close', () => end(socket)));
        socket.on('end', () => socket.end());
        socket.write(text);
    })));
    sockets.forEach((socket) => {
        socket.removeAllListeners('error');
        socket.on('error', () => {});
        t.after(() => socket.destroy());
    });
    return sockets;
}

const address = '127\\.0\\.0\\.1';

test('connections in all: 503, and room again when one has left', async (t) => {
    const bridge = await start(t, { bridge: { maxConnections: 3 } });
    const clients = [await bridge.client(), await bridge.client(), await bridge.client()];
    const { refused } = await bridge.client();
    assert.equal(refused.status, 503);
    assert.deepEqual(JSON.parse(refused.body), { type: 'error', error: 'there are too many connections', code: 'SERVER_ERROR', metadata: {} });
    await bridge.waitForLog(new RegExp(`warning mqsync-bridge MQS3025: refused ${address}: there are 3 connections already`));
    // asked often, health included: the answer is always the same, and nobody else notices
    for (let i = 0; i < 100; i++) {
        assert.equal((await bridge.get('/healthz')).status, 503);
    }
    await clients[0].subscribe('c');
    await clients[1].write('insert', 'c', unique('r'), {});
    await clients[0].take('insert');
    await clients[2].close();
    const late = await poll(async () => {
        const client = await bridge.client();
        return !client.refused && client;
    }, 'a place');
    await late.close();
    assert.ok(await poll(async () => {
        const { status, text } = await bridge.get('/metrics');
        return status === 200 && Number(/^mqsync_bridge_refused_connections_total (\d+)$/m.exec(text)[1]) >= 101;
    }, 'metrics'));
});

test('1,000 connections a second, and more than there is room for: nobody is disturbed', async (t) => {
    const bridge = await start(t, { bridge: { maxConnections: 500 } });
    const [reader, writer] = [await bridge.client(), await bridge.client()];
    const collection = unique('c');
    await reader.subscribe(collection);
    const sockets = new Set();
    t.after(() => sockets.forEach((socket) => socket.destroy()));
    let opened = 0;
    const storm = setInterval(() => {
        for (let i = 0; i < 50; i++) {
            const socket = net.connect(bridge.port, '127.0.0.1', () => {
                opened++;
            });
            socket.on('error', () => {});
            socket.on('close', () => sockets.delete(socket));
            sockets.add(socket);
        }
    }, 50);
    t.after(() => clearInterval(storm));
    const end = Date.now() + 3000;
    let worst = 0;
    let rounds = 0;
    for (; Date.now() < end; rounds++) {
        const at = process.hrtime.bigint();
        writer.send({ type: 'insert', collection, recordId: `r${rounds}`, data: { rounds } });
        await reader.take('insert');
        worst = Math.max(worst, Number(process.hrtime.bigint() - at) / 1e6);
    }
    clearInterval(storm);
    t.diagnostic(`${opened} connections, ${rounds} changes meanwhile, the slowest after ${worst.toFixed(1)} ms`);
    assert.ok(opened > 1000, `${opened}`);
    assert.ok(worst < 1000 * patience, `${worst} ms`);
    await bridge.waitForLog(/MQS3025/);
    assert.match(bridge.log, /MQS3025: \d+ more lines like this were kept back/);
});

test('no token, and no request, in time', async (t) => {
    const bridge = await start(t, withTokens);
    const client = await bridge.client();
    const [silent, slow] = await connections(t, bridge, 2);
    slow.write('GET /ws HTTP/1.1\r\nX: ');
    const trickle = setInterval(() => slow.write('x'), 500);
    t.after(() => clearInterval(trickle));
    await Promise.all([client.waitClosed(30_000 * patience), silent.ended, slow.ended]);
    assert.equal(client.closed.code, 1008);
    assert.equal((await client.next()).code, 'AUTH_FAILED');
    await bridge.waitForLog(new RegExp(`warning mqsync-bridge MQS3021: refused ${address} \\(user ''\\): no auth came within 10 s`));
    await poll(() => bridge.log.match(new RegExp(`MQS3027: ${address} has sent no whole request in time`, 'g'))?.length === 2, 'two lines');
});

test('messages in a minute', async (t) => {
    const bridge = await start(t, { ...withTokens, limits: { messagesPerMinute: 3 } });
    const client = await bridge.client(ana);
    for (let i = 0; i < 8; i++) {
        client.send({ type: 'ping' });
    }
    assert.equal((await client.take('error')).code, 'RATE_LIMIT_EXCEEDED');
    client.send('no JSON');
    assert.equal((await client.take('error')).code, 'RATE_LIMIT_EXCEEDED');
    await bridge.waitForLog(new RegExp(`warning mqsync-bridge MQS3023: ${address} \\(user 'ana'\\) has sent more than 3 messages in a minute`));
    assert.equal(client.closed, undefined);
});

test('connections of a user', async (t) => {
    const bridge = await start(t, { ...withTokens, limits: { connectionsPerUser: 2 } });
    await bridge.client(ana);
    await bridge.client(ana);
    const third = await bridge.client(ana);
    assert.equal((await third.next()).code, 'RATE_LIMIT_EXCEEDED');
    assert.equal((await third.waitClosed()).code, 1008);
    await bridge.waitForLog(new RegExp(`warning mqsync-bridge MQS3022: refused ${address} \\(user 'ana'\\): there are 2 connections already`));
});

test('size of a message', async (t) => {
    const bridge = await start(t, { ...withTokens, limits: { maxRecordBytes: 1000 } });
    const client = await bridge.client(ana);
    client.send('x'.repeat(1000 + 65536 + 1));
    assert.equal((await client.next()).code, 'INVALID_MESSAGE');
    assert.equal((await client.waitClosed()).code, 1009);
    await bridge.waitForLog(new RegExp(`warning mqsync-bridge MQS3024: ${address} \\(user 'ana'\\) has sent a message of more than 66536 bytes`));
    const refused = await request(bridge, 'POST', '/sync/c', { headers: { authorization: `Bearer ${ana.split('=')[1]}` }, text: ' '.repeat(66_537) });
    assert.equal(refused.status, 413);
    await bridge.waitForLog(new RegExp(`warning mqsync-bridge MQS3024: ${address} \\(user 'ana'\\) has sent an HTTP request with a body of more than 66536 bytes`));
});

test('nothing heard for too long', async (t) => {
    const bridge = await start(t, { ...withTokens, bridge: { idleTimeoutSeconds: 1 } });
    const client = await bridge.client(ana);
    assert.equal((await client.waitClosed()).code, 1000);
    await bridge.waitForLog(new RegExp(`info mqsync-bridge MQS3026: ${address} \\(user 'ana'\\) has sent nothing for 1 s`));
});

test('anonymous clients are counted by address', async (t) => {
    const bridge = await start(t, { limits: { connectionsPerUser: 2 }, bridge: { trustedProxies: ['127.0.0.1'] } });
    const from = (client) => bridge.client('/ws', { headers: { 'X-Forwarded-For': client } });
    await from('192.0.2.1');
    const second = await from('192.0.2.1');
    assert.equal((await (await from('192.0.2.1')).next()).code, 'RATE_LIMIT_EXCEEDED');
    await bridge.waitForLog(/MQS3022: refused 192\.0\.2\.1 \(user ''\)/);
    const other = await from('192.0.2.2');
    assert.deepEqual(await other.rest(), []);
    await second.close();
    assert.deepEqual(await (await from('192.0.2.1')).rest(), []);
});

/** What the log says where a client is that sends these headers. */
async function seen(bridge, headers) {
    const mark = bridge.log.length;
    const client = await bridge.client('/ws', { headers });
    client.send('x'.repeat(70_000));
    await client.waitClosed();
    return (await bridge.waitForLog(/MQS3024: (\S*) /, mark))[1];
}

test('X-Forwarded-For: the last address that is not trusted', async (t) => {
    const limits = { maxRecordBytes: 2 };
    const trusting = await start(t, { limits, bridge: { trustedProxies: ['127.0.0.0/8', '10.1.2.0/23', '2001:db8:1::/48', '::1'] } });
    for (const [forwarded, expected] of [
        [undefined, '127.0.0.1'],
        ['', '127.0.0.1'],
        ['203.0.113.9', '203.0.113.9'],
        ['6.6.6.6, 203.0.113.9', '203.0.113.9'],
        ['203.0.113.9 ,10.1.3.255,\t127.0.0.1', '203.0.113.9'],
        ['203.0.113.9, 10.1.4.1', '10.1.4.1'],
        ['10.1.2.1, 10.1.3.1', '10.1.2.1'],
        ['203.0.113.9:4711', '203.0.113.9'],
        ['2001:DB8:2:0::7', '2001:db8:2::7'],
        ['[2001:db8:2::7]:443, 2001:db8:1::9', '2001:db8:2::7'],
        ['::ffff:203.0.113.9, ::ffff:10.1.2.3', '203.0.113.9'],
        ['203.0.113.9, unknown', '127.0.0.1'],
        ['203.0.113.9, 999.1.1.1', '127.0.0.1'],
        [',,,,', '127.0.0.1'],
        [`${'1.1.1.1,'.repeat(500)}203.0.113.9`, '203.0.113.9'],
    ]) {
        assert.equal(await seen(trusting, forwarded === undefined ? {} : { 'X-Forwarded-For': forwarded }), expected, forwarded);
    }
    const separate = { 'X-Forwarded-For': ['6.6.6.6', '203.0.113.9'] };
    assert.equal(await seen(trusting, separate), '203.0.113.9', 'two headers');

    const mark = trusting.log.length;
    const tunnel = new WebSocket(trusting.url('/mqtt'), 'mqtt', { headers: { 'X-Forwarded-For': '203.0.113.9' } });
    tunnel.on('open', () => tunnel.send('text'));
    await trusting.waitForLog(/MQS3041: the MQTT tunnel of 203\.0\.113\.9 is closed/, mark);

    const wary = await start(t, { limits, bridge: { trustedProxies: ['127.0.0.2', '10.0.0.0/8'] } });
    assert.equal(await seen(wary, { 'X-Forwarded-For': '203.0.113.9' }), '127.0.0.1', 'of a peer that is not trusted');
});

test('an IPv6 address to listen on', { skip: !Object.values(os.networkInterfaces()).flat().some((i) => i.address === '::1') }, async (t) => {
    const bridge = await start(t, { limits: { maxRecordBytes: 2 }, bridge: { listen: '[::1]:0', trustedProxies: ['::/127'] } });
    assert.match(bridge.log, /MQS3001: listening on \[::1\]:\d+/);
    bridge.url = (where = '/ws') => `ws://[::1]:${bridge.port}${where}`;
    assert.equal(await seen(bridge, {}), '::1');
    assert.equal(await seen(bridge, { 'X-Forwarded-For': '203.0.113.9' }), '203.0.113.9');
});

/** Seconds of processor time used so far. */
function used(bridge) {
    const fields = fs.readFileSync(`/proc/${bridge.process.pid}/stat`, 'latin1').replace(/.*\) /, '').split(' ');
    return (Number(fields[11]) + Number(fields[12])) / 100;
}

test('no descriptors left: connections wait, the loop does not spin', async (t) => {
    const bridge = await start(t, {});
    const [reader, writer] = [await bridge.client(), await bridge.client()];
    const collection = unique('c');
    await reader.subscribe(collection);
    const open = new Set(fs.readdirSync(`/proc/${bridge.process.pid}/fd`));
    let unused = 0;
    while (open.has(String(unused))) {
        unused++;
    }
    const limit = (n) => assert.equal(spawnSync('prlimit', ['--pid', bridge.process.pid, `--nofile=${n}:`]).status, 0);
    const before = /Max open files\s+(\d+)/.exec(fs.readFileSync(`/proc/${bridge.process.pid}/limits`, 'latin1'))[1];
    limit(unused);
    const waiting = await connections(t, bridge, 5, 'GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n');
    await bridge.waitForLog(/error mqsync-bridge MQS3030: cannot accept connections: Too many open files/);
    const at = used(bridge);
    const end = Date.now() + 2000;
    for (let i = 0; Date.now() < end; i++) {
        writer.send({ type: 'insert', collection, recordId: `r${i}`, data: {} });
        await reader.take('insert');
        await new Promise((resolve) => setTimeout(resolve, 50));
    }
    assert.ok(used(bridge) - at < 1, `${used(bridge) - at} s of processor time in 2 s`);
    assert.ok(waiting.every((socket) => socket.text === ''));
    limit(before);
    for (const socket of await Promise.all(waiting.map(({ ended }) => ended))) {
        assert.match(socket.text, /^HTTP\/1.1 200 OK/);
    }
});

test('fewer files than maxConnections needs: said, and kept to', async (t) => {
    const bridge = await start(t, { bridge: { maxConnections: 1000 } }, { under: ['prlimit', '--nofile=80:80'] });
    await bridge.waitForLog(/warning mqsync-bridge MQS3031: bridge\.maxConnections is 1000, but .* leaves room for 16/);
    for (let i = 0; i < 16; i++) {
        assert.equal((await bridge.client()).refused, undefined);
    }
    assert.equal((await bridge.client()).refused.status, 503);
});

test('writes that the broker does not take wait with the client, not in the bridge', async (t) => {
    const bridge = await start(t);
    const [big, other] = [await bridge.client('/ws', { perMessageDeflate: false }), await bridge.client()];
    const text = 'x'.repeat(1_000_000);
    const collection = unique('c');
    const n = 40;
    broker.process.kill('SIGSTOP');
    try {
        for (let i = 0; i < n; i++) {
            big.send({ type: 'insert', collection, recordId: `r${i}`, data: { text }, metadata: { mutationId: `m${i}` } });
        }
        await poll(async () => await bridge.metric('messages_total{type="insert"}') > 0, 'the first one');
        for (const end = Date.now() + 1000; Date.now() < end;) {
            await other.rest();
        }
        assert.ok(await bridge.metric('messages_total{type="insert"}') <= 2);
    } finally {
        broker.process.kill('SIGCONT');
    }
    for (let i = 0; i < n; i++) {
        assert.equal((await big.take({ mutationId: `m${i}` })).type, 'ack');
    }
});

/** A broker whose collection c has 4,000 records of 10 kB. */
async function filledBroker(t) {
    const filled = await Broker.start({ config: { trustedUsers: [] } });
    t.after(() => filled.stop());
    await filled.terminate();
    const file = path.join(filled.directory, 'records.ndjson');
    const record = (i) => JSON.stringify({ collection: 'c', id: `r${i}`, version: 1, updatedAt: '2026-01-01T00:00:00.000Z', data: { text: 'x'.repeat(10_000) } });
    fs.writeFileSync(file, Array.from({ length: 4000 }, (_, i) => record(i)).join('\n'));
    const imported = spawnSync(ctl, ['--db', filled.database, '--quiet', 'import', file], { encoding: 'utf8' });
    assert.equal(imported.status, 0, imported.stderr);
    await filled.start();
    return filled;
}

test('a token that expires ends a snapshot that is on its way', async (t) => {
    const filled = await filledBroker(t);
    const bridge = await Bridge.start(filled, withTokens);
    t.after(() => bridge.stop());
    const exp = Math.ceil(Date.now() / 1000) + 2;
    const client = await bridge.client(`/ws?token=${token(secret, { userId: 'ana', exp })}`, { perMessageDeflate: false });
    client.send({ type: 'subscribe', collection: 'c' });
    await client.take('sync');
    client.socket.pause();
    await bridge.waitForLog(/MQS3021: refused .* the token has expired/);
    client.socket.resume();
    assert.equal((await client.waitClosed()).code, 1008);
    assert.equal(client.messages.at(-1).code, 'AUTH_FAILED');
    assert.equal(client.messages.at(-2).metadata.more, true);
});

for (const database of [true, false]) {
    test(`a snapshot waits for who reads slowly, ${database ? 'from the database' : 'through the broker'}`, async (t) => {
        const filled = await filledBroker(t);
        const bridge = await Bridge.start(filled, {}, { database });
        t.after(() => bridge.stop());
        const [client, other] = [await bridge.client('/ws', { perMessageDeflate: false }), await bridge.client()];
        client.send({ type: 'subscribe', collection: 'c' });
        const first = await client.take('sync');
        client.socket.pause();
        await poll(async () => await bridge.metric('queue_bytes') > 0, 'the queue to fill');
        for (const end = Date.now() + 1000; Date.now() < end;) {
            await other.rest();
        }
        assert.ok(await bridge.metric('queue_bytes') <= 6 << 20);
        const device = await filled.client();
        await device.short('c', first.data.records[0].id, 'delete');
        await device.short('c', 'late', 'insert', { late: true });
        client.socket.resume();
        const records = new Map(first.data.records.map((r) => [r.id, r.data]));
        for (let { more } = first.metadata; more || !records.has('late');) {
            const m = await client.next();
            if (m.type === 'sync') {
                assert.deepEqual([m.metadata.full, m.metadata.total], [true, 4000]);
                m.data.records.forEach((r) => records.set(r.id, r.data));
                m.data.deleted?.forEach((r) => records.delete(r.id));
                ({ more } = m.metadata);
            } else if (m.type === 'delete') {
                records.delete(m.recordId);
            } else if (m.type === 'insert') {
                records.set(m.recordId, m.data);
            }
        }
        assert.equal(records.size, 4000);
        assert.ok(!records.has(first.data.records[0].id));
        assert.equal(client.closed, undefined);
    });
}
