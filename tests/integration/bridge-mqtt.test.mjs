// SPDX-License-Identifier: BSD-3-Clause
// MQTT over WebSockets through the bridge: what MQTT clients notice (nothing), and what becomes of either side when the
// other ends, stalls or talks nonsense.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import crypto from 'node:crypto';
import fs from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { after, test } from 'node:test';
import { passwordLine } from '../lib/access.mjs';
import { Bridge, startBoth, token } from '../lib/bridge.mjs';
import { Broker } from '../lib/broker.mjs';
import { unique } from '../lib/client.mjs';
import { deadlineMs, memoryFactor } from '../lib/env.mjs';
import { bytes, packet } from '../lib/raw-mqtt.mjs';
import { frame, handshake, rawSocket } from '../lib/raw-ws.mjs';
import { poll, Waiters } from '../lib/wait.mjs';

const require = createRequire(import.meta.url);
const WebSocket = require('ws');

const { broker, bridge, stop } = await startBoth({}, { broker: { conf: ['max_queued_messages 0', 'max_inflight_messages 0'] } });
after(stop);

const url = () => bridge.url('/mqtt');
const text = (value) => Buffer.concat([Buffer.from([bytes(value).length >> 8, bytes(value).length & 255]), bytes(value)]);
const connect = (id, { keepalive = 600, flags = 2, more = [] } = {}) => packet('connect', 0, text('MQTT'),
    Buffer.from([4, flags, keepalive >> 8, keepalive & 255]), text(id), ...more);
const publish = (topic, payload) => packet('publish', 0, text(topic), bytes(payload));
const subscribe = (topic, qos = 0) => packet('subscribe', 2, Buffer.from([0, 1]), text(topic), Buffer.from([qos]));
const disconnect = packet('disconnect', 0);

/** A WebSocket that says what it is told to, and keeps the bytes that come back. */
class Raw {
    constructor(where = bridge, subprotocols = 'mqtt', options = {}) {
        this.waiters = new Waiters();
        this.received = [];
        this.n = 0;
        this.socket = new WebSocket(where.url('/mqtt'), subprotocols, options);
        this.socket.on('message', (data, binary) => {
            assert.ok(binary);
            this.received.push(data);
            this.n += data.length;
            this.waiters.wake();
        });
        this.socket.on('error', (error) => {
            this.error = error;
        });
        this.socket.on('close', (code, reason) => {
            this.closed = { code, reason: reason.toString() };
            this.waiters.wake();
        });
        this.socket.on('open', () => {
            this.opened = true;
            this.waiters.wake();
        });
    }

    async open() {
        await this.waiters.until(() => this.opened || this.closed, () => 'the WebSocket to open');
        assert.ok(this.opened, String(this.error));
        return this;
    }

    bytes(n) {
        return this.waiters.until(() => this.n >= n && Buffer.concat(this.received),
            () => `${n} bytes; came ${this.n}; closed ${JSON.stringify(this.closed)}`);
    }

    /** Sends CONNECT and takes the CONNACK. */
    async connect(id = unique('raw'), options) {
        await this.open();
        this.socket.send(connect(id, options));
        assert.deepEqual([...await this.bytes(4)], [0x20, 2, 0, 0]);
        return this;
    }

    end(ms) {
        return this.waiters.until(() => this.closed, () => `the WebSocket to close; ${bridge.log.slice(-1000)}`, ms);
    }
}

const raw = (...args) => new Raw(...args).open();

/** Bytes of memory of a process, now. */
const memory = (pid) => Number(/VmRSS:\s+(\d+) kB/.exec(fs.readFileSync(`/proc/${pid}/status`, 'utf8'))[1]) * 1024;

const tunnelsAreGone = (b = bridge) => poll(async () => await b.metric('tunnels') === 0, 'the tunnels to be gone');

for (const version of [4, 5]) {
    test(`publish and subscribe at each QoS, MQTT ${version}`, async () => {
        const app = await broker.client({ url: url(), version });
        const device = await broker.client({ version: 5 });
        for (const [here, there] of [[app, device], [device, app], [app, app]]) {
            for (const qos of [0, 1, 2]) {
                const topic = unique('plant/line');
                assert.equal(await here.subscribe(topic, { qos }), qos);
                assert.equal(await there.publish(topic, `at ${qos}`, { qos }), 0);
                const got = await here.other((m) => m.topic === topic);
                assert.deepEqual([got.text, got.qos], [`at ${qos}`, qos]);
            }
        }
        await app.close();
    });

    test(`records, MQTT ${version}`, async () => {
        const app = await broker.client({ url: url(), version });
        const web = await bridge.client();
        const collection = unique('c');
        await app.subscribe(`sync/${collection}/evt/+`);
        await web.subscribe(collection);
        await app.short(collection, 'r', 'insert', { a: 1 });
        assert.equal((await app.event()).metadata.version, 1);
        assert.deepEqual((await web.take('insert')).data, { a: 1 });
        await web.write('update', collection, 'r', { b: 2 });
        assert.deepEqual((await app.event('update')).data, { b: 2 });
        await app.cmd(collection, { type: 'subscribe' });
        assert.equal((await app.answer('subscribed')).metadata.recordCount, 1);
        assert.deepEqual((await app.answer('sync')).data.records[0].data, { a: 1, b: 2 });
        await Promise.all([app.close(), web.close()]);
    });

    test(`a payload of 1 MB, both ways, MQTT ${version}`, async () => {
        const [app, device] = [await broker.client({ url: url(), version }), await broker.client()];
        const payload = crypto.randomBytes(1024 * 1024);
        const topic = unique('big');
        await app.subscribe(topic);
        await device.subscribe(`${topic}/back`);
        await device.publish(topic, payload, { qos: 1 });
        assert.ok((await app.other()).payload.equals(payload));
        for (const qos of [0, 1, 2]) {
            await app.publish(`${topic}/back`, payload, { qos });
            assert.ok((await device.other()).payload.equals(payload));
        }
        await app.close();
    });
}

test('the client is who it says it is to the broker, not the bridge', async (t) => {
    const directory = fs.mkdtempSync(path.join(broker.directory, 'guarded-'));
    const file = (name) => path.join(directory, name);
    for (const [i, user] of ['ana', 'bridge'].entries()) {
        const made = spawnSync('mosquitto_passwd', [...(i ? [] : ['-c']), '-b', file('passwords'), user, `${user}-secret`]);
        assert.equal(made.status, 0, String(made.stderr));
    }
    fs.writeFileSync(file('acl'), 'user ana\ntopic readwrite ana/#\n\nuser bridge\ntopic readwrite #\n');
    fs.writeFileSync(file('bridge'), 'bridge-secret\n');
    const guarded = await Broker.start({ directory, anonymous: false, login: { username: 'bridge', password: 'bridge-secret' },
        conf: [`password_file ${file('passwords')}`, `acl_file ${file('acl')}`] });
    t.after(() => guarded.stop());
    const own = await Bridge.start(guarded, { bridge: { username: 'bridge', passwordFile: file('bridge') } });
    t.after(() => own.stop());
    const app = await guarded.client({ url: own.url('/mqtt'), version: 5, username: 'ana', password: 'ana-secret' });
    assert.equal(await app.publish('bridge/x', 'x'), 0x87);
    assert.equal(await app.publish('ana/x', 'x') & 0x80, 0);
    await app.close();
    await assert.rejects(guarded.client({ url: own.url('/mqtt'), version: 5, username: 'ana', password: 'wrong' }), /Not authorized/);
    await assert.rejects(guarded.client({ url: own.url('/mqtt'), version: 4 }), /Not authorized/);
});

test('with auth.mqtt the token is the password, and the rules hold', async (t) => {
    const directory = fs.mkdtempSync(path.join(broker.directory, 'tokens-'));
    const file = (name) => path.join(directory, name);
    fs.writeFileSync(file('key'), 'a secret of the tests');
    fs.writeFileSync(file('passwords'), `${passwordLine('bridge', 'b')}\n`);
    fs.writeFileSync(file('bridge'), 'b\n');
    const config = { collections: { notes: { read: ['user:ana'], write: ['user:ana'] }, '*': {} }, trustedUsers: ['bridge'],
        auth: { mqtt: true, jwt: { algorithm: 'HS256', keyFile: file('key') } } };
    const guarded = await Broker.start({ directory, config, conf: [`password_file ${file('passwords')}`],
        login: { username: 'bridge', password: 'b' } });
    t.after(() => guarded.stop());
    const own = await Bridge.start(guarded, { ...config, bridge: { username: 'bridge', passwordFile: file('bridge') } });
    t.after(() => own.stop());
    const login = (userId) => guarded.client({ url: own.url('/mqtt'), version: 5, username: '',
        password: token('a secret of the tests', { userId }) });
    const [ana, bo] = [await login('ana'), await login('bo')];
    await ana.subscribe('sync/notes/evt/+');
    assert.equal(await bo.short('notes', 'r', 'insert', { a: 1 }), 0x87);
    assert.equal(await ana.short('notes', 'r', 'insert', { a: 1 }) & 0x80, 0);
    assert.equal((await ana.event()).metadata.userId, 'ana');
    await Promise.all([ana.close(), bo.close()]);
    await assert.rejects(guarded.client({ url: own.url('/mqtt'), version: 5, username: 'ana', password: 'nonsense' }), /Not authorized/);
});

test('several packets in one frame, packets in pieces, and fragmented frames', async () => {
    const topic = unique('pieces');
    const talk = () => Buffer.concat([connect(unique('p')), subscribe(topic), publish(topic, 'one'), publish(topic, 'two')]);
    const expected = 4 + 5 + 2 * publish(topic, 'one').length;
    const once = await raw();
    once.socket.send(talk());
    const answer = await once.bytes(expected);
    assert.ok(answer.includes('one') && answer.includes('two'));
    const bytewise = await raw();
    for (const byte of talk()) {
        bytewise.socket.send(Buffer.from([byte]));
    }
    assert.ok((await bytewise.bytes(expected)).includes('two'));
    const fragmented = await raw();
    const all = talk();
    for (let i = 0; i < all.length; i++) {
        fragmented.socket.send(all.subarray(i, i + 1), { fin: i === all.length - 1, binary: true });
        if (i === 5) {
            fragmented.socket.ping('between'); // control frames may come between fragments
            fragmented.socket.send(Buffer.alloc(0), { fin: false, binary: true });
        }
    }
    assert.ok((await fragmented.bytes(expected)).includes('two'));
    for (const client of [once, bytewise, fragmented]) {
        client.socket.close();
        assert.equal((await client.end()).code, 1005);
    }
});

test('the will is published when the client is lost, not when it says goodbye; what came last is not lost', async () => {
    const device = await broker.client();
    await device.subscribe('last/#');
    const will = (id) => ({ flags: 2 | 4, more: [text(`last/${id}/will`), text('gone')] });
    const ends = {
        terminated: (client) => client.socket.terminate(),
        closed: (client) => client.socket.close(),
        said: (client) => client.socket.send(disconnect),
        'said-and-closed': (client) => {
            client.socket.send(disconnect);
            client.socket.close();
        },
    };
    for (const [name, end] of Object.entries(ends)) {
        const client = await new Raw().connect(unique('w'), will(name));
        client.socket.send(publish(`last/${name}/word`, 'x'));
        await device.other((m) => m.topic === `last/${name}/word`);
        end(client);
        await client.end();
    }
    for (const name of ['terminated', 'closed']) {
        assert.equal((await device.other((m) => m.topic === `last/${name}/will`)).text, 'gone');
    }
    await tunnelsAreGone();
    await device.publish('last/mark', '');
    await device.other((m) => m.topic === 'last/mark');
    assert.deepEqual(device.others.map((m) => m.topic), []);
});

test('everything in one go, without waiting for an answer', async () => {
    const device = await broker.client();
    const topic = unique('go');
    await device.subscribe(topic);
    const client = await raw();
    const payload = crypto.randomBytes(300_000);
    client.socket.send(connect(unique('g')));
    client.socket.send(publish(topic, payload));
    client.socket.send(disconnect);
    client.socket.close();
    assert.ok((await device.other()).payload.equals(payload));
    await client.end();
});

test('a client that does not read costs the bridge no memory, and gets everything in the end', async () => {
    const topic = unique('slow');
    const slow = await new Raw().connect();
    slow.socket.send(subscribe(topic));
    await slow.bytes(9);
    slow.socket.pause();
    const device = await broker.client();
    const payload = Buffer.alloc(256 * 1024, 'x');
    const before = memory(bridge.process.pid);
    const count = 200; // 50 MB
    for (let i = 0; i < count; i++) {
        await device.publish(topic, payload, { qos: 1 });
    }
    const other = await broker.client({ url: url() });
    await other.subscribe(`${topic}/other`);
    await other.publish(`${topic}/other`, 'quick');
    assert.equal((await other.other()).text, 'quick');
    const grown = memory(bridge.process.pid) - before;
    assert.ok(grown < 2_000_000 * memoryFactor, `the bridge has grown by ${grown} bytes`);
    slow.socket.resume();
    await slow.bytes(9 + count * publish(topic, payload).length);
    slow.socket.close();
    await Promise.all([slow.end(), other.close()]);
});

test('a broker that does not read costs the bridge no memory, and gets everything in the end', async (t) => {
    const still = await startBoth();
    t.after(still.stop);
    const topic = unique('stop');
    const device = await still.broker.client();
    await device.subscribe(topic, { qos: 0 });
    const client = await new Raw(still.bridge).connect();
    const before = memory(still.bridge.process.pid);
    const payload = Buffer.alloc(256 * 1024, 'x');
    const count = 100; // 25 MB: more than the sockets' buffers take
    still.broker.process.kill('SIGSTOP');
    for (let i = 0; i < count; i++) {
        client.socket.send(publish(topic, payload));
    }
    const web = await still.bridge.client();
    await poll(async () => {
        const n = await still.bridge.metric('tunnel_received_bytes_total');
        web.send({ type: 'ping' });
        await web.take('pong');
        return n === await still.bridge.metric('tunnel_received_bytes_total') && n > 100_000;
    }, 'the bridge to stop reading');
    assert.ok(client.socket.bufferedAmount > 0);
    const grown = memory(still.bridge.process.pid) - before;
    assert.ok(grown < 2_000_000 * memoryFactor, `the bridge has grown by ${grown} bytes`);
    still.broker.process.kill('SIGCONT');
    await device.until(() => device.others.length === count, `${count} messages`);
    client.socket.close();
    await client.end();
});

test('a broker that stops, is gone, and comes back', async (t) => {
    const own = await startBoth();
    t.after(own.stop);
    const stopped = await new Raw(own.bridge).connect();
    await own.broker.terminate();
    assert.deepEqual(await stopped.end(), { code: 1001, reason: 'the broker has closed the connection' });
    const refused = await raw(own.bridge);
    refused.socket.send(connect(unique('r')));
    assert.deepEqual(await refused.end(), { code: 1013, reason: 'the broker cannot be reached' });
    assert.match(own.bridge.log, /MQS3040: the MQTT tunnel of 127\.0\.0\.1: the broker cannot be reached: Connection refused/);
    await own.broker.start();
    const killed = await new Raw(own.bridge).connect();
    await own.broker.kill();
    assert.ok([1001, 1011].includes((await killed.end()).code));
    await tunnelsAreGone(own.bridge);
    await own.broker.start();
    const back = await own.broker.client({ url: own.bridge.url('/mqtt') });
    await back.close();
});

test('a broker that has never been there', async (t) => {
    const own = await startBoth();
    t.after(own.stop);
    await own.bridge.terminate();
    await own.broker.terminate();
    await own.bridge.start({ up: false });
    const early = await raw(own.bridge);
    early.socket.send(connect(unique('r')));
    assert.equal((await early.end()).code, 1013);
    assert.match(own.bridge.log, /MQS3040: .*it has not been reached yet/);
    await own.broker.start();
    await own.bridge.waitForLog(/MQS3010: connected[^]*MQS3010: connected/);
    await (await own.broker.client({ url: own.bridge.url('/mqtt') })).close();
});

test('a broker that takes connections and does not answer', async () => {
    const client = await new Raw().connect();
    broker.process.kill('SIGSTOP');
    // the kernel accepts for the broker: these wait, and others are not disturbed
    const waiting = await raw();
    waiting.socket.send(connect(unique('s')));
    const web = await bridge.client();
    web.send({ type: 'ping' });
    await web.take('pong');
    broker.process.kill('SIGCONT');
    await waiting.bytes(4);
    for (const c of [client, waiting]) {
        c.socket.close();
        await c.end();
    }
});

test('200 at once', async () => {
    const topic = unique('many');
    const apps = await Promise.all(Array.from({ length: 200 }, (_, i) => broker.client({ url: url(), version: 4 + i % 2 })));
    await Promise.all(apps.map((app) => app.subscribe(`${topic}/+`, { qos: 1 })));
    assert.equal(await bridge.metric('tunnels'), 200);
    await Promise.all(apps.map((app, i) => app.publish(`${topic}/${i}`, String(i))));
    await Promise.all(apps.map((app) => app.until(() => app.others.length === 200, '200 messages')));
    assert.equal(new Set(apps[7].others.map((m) => m.text)).size, 200);
    await Promise.all(apps.map((app) => app.close()));
    await tunnelsAreGone();
});

test('what is no MQTT: the broker ends it', async () => {
    for (const nonsense of [Buffer.from('GET / HTTP/1.1\r\n\r\n'), Buffer.alloc(70_000, 0xff), crypto.randomBytes(64).fill(0, 0, 1)]) {
        const client = await raw();
        client.socket.send(nonsense);
        assert.ok([1001, 1011].includes((await client.end()).code));
    }
    const before = await new Raw().connect();
    before.socket.send(Buffer.alloc(100_000, 0xff));
    assert.ok([1001, 1011].includes((await before.end()).code));
});

test('text frames are refused', async () => {
    for (const fin of [true, false]) {
        const mark = bridge.log.length;
        const client = await new Raw().connect();
        client.socket.send('MQTT', { fin });
        assert.deepEqual(await client.end(), { code: 1003, reason: 'MQTT comes in binary frames' });
        await bridge.waitForLog(/MQS3041: the MQTT tunnel of 127\.0\.0\.1 is closed: MQTT comes in binary frames/, mark);
    }
    await tunnelsAreGone();
});

/** What an upgrade is answered with. */
function upgradeStatus(at, where, ...more) {
    return new Promise((resolve, reject) => {
        const socket = new WebSocket(at.url(where), ...more);
        socket.on('unexpected-response', (request, response) => {
            resolve(response.statusCode);
            request.destroy();
        });
        socket.on('open', () => {
            resolve(101);
            socket.terminate();
        });
        socket.on('error', (error) => reject(error));
    });
}

test('which subprotocol goes where', async () => {
    const subprotocols = { mqtt: 'mqtt', 'mqttv3.1': 'mqttv3.1', 'foo,mqtt': 'mqtt', 'mqttv3.1,mqtt': 'mqttv3.1' };
    for (const [asked, got] of Object.entries(subprotocols)) {
        const client = await raw(bridge, asked.split(','));
        assert.equal(client.socket.protocol, got);
        assert.equal(client.socket.extensions, '', 'no permessage-deflate');
        client.socket.terminate();
    }
    const status = (where, ...more) => upgradeStatus(bridge, where, ...more);
    assert.equal(await status('/mqtt'), 400);
    for (const asked of ['mqsync', 'foo', 'mqsync-upstream', 'mqsync-signals', 'x'.repeat(200)]) {
        assert.equal(await status('/mqtt', [asked]), 400, asked);
    }
    for (const asked of ['mqtt', 'mqttv3.1', 'foo', 'mqsync-upstream', 'mqsync-signals']) {
        assert.equal(await status('/ws', [asked]), 400, asked);
        assert.equal(await status('/ws', [asked, 'mqsync']), asked === 'foo' ? 101 : 400, asked);
    }
    assert.equal(await status('/ws', ['mqsync']), 101);
    assert.equal(await status('/mqtt/more', ['mqtt']), 404);
    assert.equal((await bridge.get('/mqtt')).status, 404);
});

test('bridge.mqtt false: there is no such path, and the rest is as ever', async (t) => {
    const bridge = await Bridge.start(broker, { bridge: { mqtt: false } });
    t.after(() => bridge.stop());
    assert.equal(await upgradeStatus(bridge, '/mqtt', ['mqtt']), 404);
    assert.equal(await upgradeStatus(bridge, '/ws'), 101);
});

const asking = (where, subprotocols) => handshake(where, `Sec-WebSocket-Protocol: ${subprotocols}\r\n`);
const CONNACK = Buffer.from([0x82, 4, 0x20, 2, 0, 0]);

test('subprotocols that are written oddly open nothing else', async () => {
    for (const inner of ['mqsync-signals', 'mqsync-upstream', 'mqtt', 'mqsync']) {
        for (const odd of [`a(${inner}), `, `a/${inner}, `, `a"${inner}", `, `"${inner}", `, `a;${inner}, `, `a=${inner} , `, `@${inner},`]) {
            for (const [where, right] of [['/ws', 'mqsync'], ['/mqtt', 'mqtt']]) {
                const socket = rawSocket(bridge, asking(where, odd + right));
                await socket.until(() => socket.destroyed || socket.received().includes('\r\n\r\n'), 'an answer');
                const got = socket.received().toString('latin1');
                if (got.startsWith('HTTP/1.1 101')) {
                    assert.match(got, new RegExp(`Sec-WebSocket-Protocol: ${right}\r\n`), `${where} ${odd}`);
                }
                socket.destroy();
            }
        }
    }
    await tunnelsAreGone();
});

test('frames in one piece with the request; a connection that just breaks off', async () => {
    const topic = unique('first');
    const device = await broker.client();
    await device.subscribe(`${topic}/#`);
    const will = connect(unique('f'), { flags: 2 | 4, more: [text(`${topic}/will`), text('gone')] });
    const quick = rawSocket(bridge, Buffer.concat([bytes(asking('/mqtt', 'mqtt')), frame(2, will), frame(2, publish(`${topic}/word`, 'x'))]));
    assert.equal((await device.other()).text, 'x');
    await quick.until(() => quick.received().includes(CONNACK), 'CONNACK');
    quick.end(); // no close frame
    assert.equal((await device.other()).text, 'gone');
    await quick.until(() => quick.destroyed, 'the end');
    const half = rawSocket(bridge, Buffer.concat([bytes(asking('/mqtt', 'mqtt')), frame(2, connect(unique('h'))),
        frame(2, publish(`${topic}/half`, 'all of it')).subarray(0, -3)]));
    await half.until(() => half.received().includes(CONNACK), 'CONNACK');
    half.resetAndDestroy();
    await tunnelsAreGone();
});

test('the page\'s origin counts here, too', async (t) => {
    const picky = await Bridge.start(broker, { bridge: { allowedOrigins: ['https://app.example'] } });
    t.after(() => picky.stop());
    const good = await raw(picky, 'mqtt', { origin: 'https://app.example' });
    good.socket.terminate();
    const bad = new Raw(picky, 'mqtt', { origin: 'https://evil.example' });
    await bad.end();
    assert.match(String(bad.error), /403/);
});

test('silence: a client that is there may say nothing, one that is gone is noticed', async (t) => {
    const strict = await Bridge.start(broker, { bridge: { idleTimeoutSeconds: 2 } });
    t.after(() => strict.stop());
    const alive = await new Raw(strict).connect(unique('a'), { keepalive: 0 });
    let pings = 0;
    alive.socket.on('ping', () => pings++);
    const dead = await new Raw(strict, 'mqtt', { autoPong: false }).connect(unique('d'), { keepalive: 0 });
    assert.deepEqual(await dead.end(), { code: 1001, reason: 'no sign of life' });
    await poll(() => pings >= 2, 'two pings');
    assert.equal(alive.closed, undefined);
    assert.match(strict.log, /MQS3041: .*no sign of life/);
    alive.socket.terminate();
});

test('a client that never says anything is cut', async () => {
    const mute = await raw();
    const connections = await bridge.metric('connections');
    assert.deepEqual(await mute.end(2 * deadlineMs), { code: 1008, reason: 'no MQTT came in time' });
    assert.equal(await bridge.metric('connections'), connections - 1);
});

test('a stop of the bridge: 1001, and the will', async (t) => {
    const own = await Bridge.start(broker);
    t.after(() => own.kill());
    const device = await broker.client();
    const topic = unique('will');
    await device.subscribe(topic);
    const client = await new Raw(own).connect(unique('w'), { flags: 2 | 4, more: [text(topic), text('gone')] });
    const mute = await raw(own);
    await own.terminate();
    assert.deepEqual(await client.end(), { code: 1001, reason: 'the server is stopping' });
    assert.equal((await mute.end()).code, 1001);
    assert.equal((await device.other()).text, 'gone');
});

test('TLS on both sides: wss to the bridge, mqtts to the broker', async (t) => {
    const directory = broker.directory;
    const file = (name) => path.join(directory, name);
    const made = spawnSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2',
        '-subj', '/CN=localhost', '-addext', 'subjectAltName=IP:127.0.0.1,DNS:localhost', '-keyout', file('tls.key'), '-out', file('tls.crt')]);
    assert.equal(made.status, 0, String(made.stderr));
    const secret = await Broker.start({ ports: 2,
        write: (b) => [...b.pluginLines(), 'allow_anonymous true', `listener ${b.ports[0]} 127.0.0.1`,
            `listener ${b.ports[1]} 127.0.0.1`, `certfile ${file('tls.crt')}`, `keyfile ${file('tls.key')}`] });
    t.after(() => secret.stop());
    process.env.SSL_CERT_FILE = file('tls.crt');
    t.after(() => delete process.env.SSL_CERT_FILE);
    for (const host of ['127.0.0.1', 'localhost']) {
        const secure = await Bridge.start(secret, { bridge: { broker: `mqtts://${host}:${secret.ports[1]}`,
            tls: { certFile: file('tls.crt'), keyFile: file('tls.key') } } });
        t.after(() => secure.kill());
        const app = await secret.client({ url: secure.url('/mqtt').replace('ws:', 'wss:'), version: 5, ca: fs.readFileSync(file('tls.crt')) });
        const device = await secret.client();
        const payload = crypto.randomBytes(1024 * 1024);
        await Promise.all([app.subscribe('there'), device.subscribe('back')]);
        await device.publish('there', payload);
        assert.ok((await app.other()).payload.equals(payload));
        await app.publish('back', payload, { qos: 2 });
        assert.ok((await device.other()).payload.equals(payload));
        await app.close();
        await device.close();
        await secure.terminate();
    }
});
