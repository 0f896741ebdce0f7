// SPDX-License-Identifier: BSD-3-Clause
// The bridge as a service: what it says to systemd, sockets that systemd has made, SIGHUP, how it stops.
import assert from 'node:assert/strict';
import net from 'node:net';
import path from 'node:path';
import { after, test } from 'node:test';
import { Bridge, WsClient } from '../lib/bridge.mjs';
import { Broker } from '../lib/broker.mjs';
import { unique } from '../lib/client.mjs';
import { build, deadlineMs, patience } from '../lib/env.mjs';
import { poll } from '../lib/wait.mjs';

const broker = await Broker.start({});
after(() => broker.stop());
const manager = path.join(build, 'tests/service_manager');

async function start(t, config, options) {
    const bridge = await Bridge.start(broker, config, options);
    t.after(() => (bridge.exit ? undefined : bridge.stop()));
    return bridge;
}

/** The service's own words, once there are as many as `n` lines of this kind. */
function said(bridge, pattern, n = 1) {
    return bridge.waiters.until(() => {
        const found = bridge.output?.match(pattern);
        return found?.length >= n && found;
    }, () => `${pattern} ${n} times in:\n${bridge.output}\n${bridge.log}`);
}

test('ready, reloading, stopping, watchdog', async (t) => {
    const bridge = await start(t, {}, { under: [manager], env: { WATCHDOG_USEC: '600000' } });
    await said(bridge, /^READY=1$/gm);
    // alive says so before the time is over: three times in each
    const begin = Date.now();
    await said(bridge, /^WATCHDOG=1$/gm, 6);
    const took = Date.now() - begin;
    assert.ok(took > 500 && took < 3000 * patience, `${took} ms`);
    bridge.process.kill('SIGHUP');
    await said(bridge, /^RELOADING=1\nMONOTONIC_USEC=\d+$/gm);
    await said(bridge, /^READY=1$/gm, 2);
    assert.ok(bridge.output.indexOf('RELOADING=1') < bridge.output.lastIndexOf('READY=1'));
    await bridge.stop();
    assert.match(bridge.output, /^STOPPING=1$/m);
});

test('without a watchdog nothing is said of one, and nothing at all without a manager', async (t) => {
    const bridge = await start(t, {}, { under: [manager], env: { WATCHDOG_USEC: '' } });
    await said(bridge, /^READY=1$/gm);
    await (await bridge.client()).rest();
    await bridge.stop();
    assert.equal(bridge.output, 'READY=1\nSTOPPING=1\n');
    const alone = await start(t, {}, { env: { NOTIFY_SOCKET: '/nowhere/at/all', LISTEN_FDS: '1', LISTEN_PID: '1', WATCHDOG_USEC: '1000', WATCHDOG_PID: '1' } });
    await (await alone.client()).rest();
});

test('who comes while the bridge starts waits for the broker instead of being refused', async (t) => {
    for (let i = 0; i < 5; i++) {
        const bridge = new Bridge(broker, {});
        t.after(() => bridge.stop());
        await bridge.start({ up: false });
        const response = await fetch(`http://127.0.0.1:${bridge.port}/sync/c`, { method: 'POST', body: `{"recordId":"r${i}","data":{}}` });
        assert.equal(response.status, 200, await response.text());
    }
    // not for ever: without a broker it says so
    const alone = new Bridge(broker, { bridge: { broker: 'mqtt://127.0.0.1:1' } });
    t.after(() => alone.stop());
    await alone.start({ up: false });
    assert.equal((await fetch(`http://127.0.0.1:${alone.port}/healthz`)).status, 503);
});

test('sockets that the service manager has made: TCP and Unix', async (t) => {
    const file = path.join(broker.directory, 'bridge.socket');
    const bridge = await start(t, { limits: { maxRecordBytes: 2 }, bridge: { listen: '127.0.0.1:1', trustedProxies: ['unix'] } },
        { under: [manager, 'tcp', `unix:${file}`] });
    assert.match(bridge.log, /MQS3001: listening on 127\.0\.0\.1:\d+, a socket of the service manager's/);
    assert.match(bridge.log, new RegExp(`MQS3001: listening on ${file}, a socket of the service manager's`));
    const collection = unique('c');
    const tcp = await bridge.client();
    const unix = new WsClient(bridge, `ws+unix:${file}:/ws`, { headers: { 'X-Forwarded-For': '203.0.113.9' } });
    bridge.clients.add(unix);
    await unix.open();
    await unix.subscribe(collection);
    await tcp.write('insert', collection, 'r', {});
    await unix.take('insert');
    unix.send('x'.repeat(70_000));
    await bridge.waitForLog(/MQS3024: 203\.0\.113\.9 /);
});

test('pings keep a connection over a Unix socket open, silence does not', async (t) => {
    const file = path.join(broker.directory, 'pinged.socket');
    const bridge = await start(t, { bridge: { idleTimeoutSeconds: 1 } }, { under: [manager, 'tcp', `unix:${file}`] });
    const open = (options) => {
        const client = new WsClient(bridge, `ws+unix:${file}:/ws`, options);
        bridge.clients.add(client);
        return client.open();
    };
    const pinging = [await open(), await open({ perMessageDeflate: false })];
    const timer = setInterval(() => pinging.forEach((client) => client.socket.ping()), 200);
    t.after(() => clearInterval(timer));
    for (let i = 0; i < 2; i++) { // one after the other: longer than the pinging ones could be silent
        assert.equal((await (await open()).waitClosed()).code, 1000);
    }
    assert.deepEqual(pinging.map((client) => client.closed), [undefined, undefined]);
    clearInterval(timer);
    assert.deepEqual((await Promise.all(pinging.map((client) => client.waitClosed()))).map(({ code }) => code), [1000, 1000]);
});

test('what is passed as a socket and is none stops the start', async () => {
    const bridge = new Bridge(broker);
    bridge.options.under = ['sh', '-c', 'export LISTEN_PID=$$ LISTEN_FDS=1; exec 3</dev/null "$@"', 'sh'];
    bridge.spawn();
    await bridge.exited;
    assert.equal(bridge.exit.code, 1);
    assert.match(bridge.log, /MQS3008: descriptor 3, passed as a socket, is none/);
});

test('a port that is taken stops the start', async (t) => {
    const first = await start(t, {});
    const second = new Bridge(broker, { bridge: { listen: `127.0.0.1:${first.port}` } });
    second.spawn();
    await second.exited;
    assert.equal(second.exit.code, 1);
    assert.match(second.log, /MQS3008: bridge\.listen: cannot listen on 127\.0\.0\.1:\d+: Address already in use/);
});

test('a name server that does not answer holds up nobody', async (t) => {
    const env = { LD_PRELOAD: path.join(build, 'tests/slowresolver.so'), ASAN_OPTIONS: `${process.env.ASAN_OPTIONS ?? ''}:verify_asan_link_order=0` };
    const bridge = new Bridge(broker, { bridge: { broker: 'mqtt://broker.slow' } }, { env });
    t.after(() => bridge.kill());
    await bridge.start({ up: false });
    const client = await bridge.client();
    const begin = Date.now();
    let rounds = 0;
    for (; !bridge.log.includes('MQS3011'); rounds++) {
        const at = Date.now();
        assert.equal((await bridge.get('/healthz')).status, 503);
        client.send({ type: 'insert', collection: 'c', recordId: 'r', data: {} });
        assert.equal((await client.take('error')).code, 'SERVER_ERROR');
        assert.ok(Date.now() - at < 2000 * patience, `${Date.now() - at} ms`);
    }
    assert.ok(Date.now() - begin > 1000 && rounds > 10, `${rounds} rounds in ${Date.now() - begin} ms`);
    // and when it is asked again, nobody waits for the answer to stop
    await poll(() => bridge.log.match(/slowresolver: looking for broker\.slow/g).length === 2, 'the second question');
    const at = Date.now();
    await bridge.stop();
    assert.ok(Date.now() - at < 3000 * patience, `${Date.now() - at} ms`);
});

test('SIGHUP says what waits for a restart', async (t) => {
    const bridge = await start(t, {});
    for (const [key, change] of Object.entries({
        root: { root: 'other' },
        'bridge.listen': { bridge: { listen: '127.0.0.1:1' } },
        'bridge.broker': { bridge: { broker: 'mqtt://localhost' } },
        'bridge.username': { bridge: { username: 'x' } },
        'bridge.passwordFile': { bridge: { passwordFile: '/x' } },
        'bridge.tls': { bridge: { tls: { certFile: '/x', keyFile: '/x' } } },
        'bridge.maxConnections': { bridge: { maxConnections: 7 } },
    })) {
        const mark = bridge.log.length;
        bridge.write(change);
        bridge.process.kill('SIGHUP');
        await bridge.waitForLog(/MQS3003/, mark);
        assert.match(bridge.log.slice(mark), new RegExp(`warning mqsync-bridge MQS3005: ${key.replace('.', '\\.')} has changed`));
        bridge.write({});
        bridge.process.kill('SIGHUP');
        await poll(() => bridge.log.slice(mark).match(/MQS3003/g).length === 2, 'the second reload');
    }
    assert.deepEqual(await (await bridge.client()).rest(), []);
});

/** A client that has stopped reading while megabytes wait for it; resolves once they do. */
async function stuck(bridge, n) {
    const [slow, writer] = [await bridge.client('/ws', { perMessageDeflate: false }), await bridge.client()];
    const collection = unique('c');
    await slow.subscribe(collection);
    slow.socket.pause();
    for (let i = 0; i < n;) {
        const batch = Array.from({ length: 50 }, () => writer.write('insert', collection, `r${i++}`, { text: 'x'.repeat(10_000) }));
        await Promise.all(batch);
    }
    await poll(async () => (await bridge.metric('command_to_event_seconds_count')) === n, 'the events');
    assert.ok(await bridge.metric('queue_bytes') > 1_000_000);
    return slow;
}

test('stopping: what is queued goes out first, idle ones are closed at once, nobody new is let in', async (t) => {
    const bridge = await start(t, { bridge: { sendQueueBytes: 1 << 26 } });
    const slow = await stuck(bridge, 1500);
    const idle = await bridge.client();
    bridge.process.kill('SIGTERM');
    assert.equal((await idle.waitClosed()).code, 1001);
    await assert.rejects(new Promise((resolve, reject) => {
        net.connect(bridge.port, '127.0.0.1').on('connect', resolve).on('error', reject);
    }), { code: 'ECONNREFUSED' });
    assert.equal(bridge.exit, undefined);
    slow.socket.resume();
    assert.equal((await slow.waitClosed()).code, 1001);
    assert.equal(slow.messages.filter((m) => m.type === 'insert').length, 1500);
    await bridge.exited;
    assert.deepEqual(bridge.exit, { code: 0, signal: null });
});

for (const impatient of [false, true]) {
    test(`stopping: one that never reads is waited for ${impatient ? 'no longer after a second SIGTERM' : 'for some seconds'}`, async (t) => {
        const bridge = await start(t, { bridge: { sendQueueBytes: 1 << 26 } });
        await stuck(bridge, 1500);
        const begin = Date.now();
        bridge.process.kill('SIGTERM');
        await bridge.waitForLog(/MQS3006/);
        if (impatient) {
            bridge.process.kill('SIGTERM');
        }
        await bridge.exited;
        const took = Date.now() - begin;
        assert.deepEqual(bridge.exit, { code: 0, signal: null });
        assert.ok(impatient ? took < 3000 * patience : took > 3000 && took < deadlineMs, `${took} ms`);
    });
}
