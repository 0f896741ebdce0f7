// SPDX-License-Identifier: BSD-3-Clause
// The bridge when things go: the broker, the bridge itself, readers that do not read; and what its port says beside WebSockets.
import assert from 'node:assert/strict';
import crypto from 'node:crypto';
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { after, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Bridge, bridgeProgram, startBoth, WsClient } from '../lib/bridge.mjs';
import { Broker } from '../lib/broker.mjs';
import { unique } from '../lib/client.mjs';

for (const database of [true, false]) {
    const how = database ? 'reading the database' : 'reading through the broker';

    test(`the broker restarts: clients stay, subscriptions go on by seq, ${how}`, async (t) => {
        const { broker, bridge, stop } = await startBoth({}, { database });
        t.after(stop);
        const collection = unique('c');
        const [ana, app] = [await bridge.client(), await bridge.client(`/ws/${collection}`)];
        await ana.subscribe(collection);
        await app.subscribed(collection);
        await ana.write('insert', collection, 'r', { a: 1 });
        await app.take('insert');

        const mark = bridge.log.length;
        await broker.terminate();
        await bridge.waitForLog(/MQS3011/, mark);
        const refused = await ana.write('update', collection, 'r', { a: 2 });
        assert.equal(refused.code, 'SERVER_ERROR');
        assert.equal((await bridge.get('/healthz')).status, 503);
        await broker.start();
        await bridge.waitForLog(/MQS3010/, mark);
        assert.equal((await bridge.get('/healthz')).status, 200);
        const device = await broker.client();
        await device.short(collection, 'r', 'update', { a: 3 });
        assert.deepEqual((await ana.take('update')).data, { a: 3 });
        await device.short(collection, 'r', 'delete');
        assert.equal((await app.take('delete')).recordId, 'r');
        assert.equal((await ana.take('delete')).metadata.version, 3);
        assert.deepEqual(await ana.rest(), []);
    });
}

test('the broker dies with writes on their way: each is answered, and what is answered is true', async (t) => {
    const { broker, bridge, stop } = await startBoth();
    t.after(stop);
    const collection = unique('c');
    const [ana, bo] = [await bridge.client(), await bridge.client()];
    await bo.subscribe(collection);
    const mark = bridge.log.length;
    broker.process.kill('SIGSTOP');
    const answers = Array.from({ length: 600 }, (_, i) => ana.write('insert', collection, `r${i}`, { i }));
    // more than the bridge lets be on their way: it has stopped reading from this client, and from no other
    bo.send({ type: 'ping' });
    await bo.take('pong');
    await broker.kill();
    await bridge.waitForLog(/MQS3011/, mark);
    ana.send({ type: 'ping' });
    await ana.take('pong');
    await broker.start();
    await bridge.waitForLog(/MQS3010/, mark);
    const [acked, refused] = [new Set(), new Set()];
    for (const answer of await Promise.all(answers)) {
        assert.ok(answer.type === 'ack' || answer.code === 'SERVER_ERROR', JSON.stringify(answer));
        (answer.type === 'ack' ? acked : refused).add(answer.metadata.recordId ?? answer.recordId);
    }
    assert.ok(acked.size > 0 && refused.size > 0, `${acked.size} acknowledged, ${refused.size} refused`);
    bo.send({ type: 'sync', collection, metadata: { limit: 1000 } });
    bo.messages = bo.messages.filter((m) => m.type !== 'sync');
    const { records } = await bo.pages(collection);
    assert.deepEqual([...records.keys()].sort(), [...acked].sort());
});

test('a command that the broker takes only bit by bit', async (t) => {
    const { broker, bridge, stop } = await startBoth({ limits: { maxRecordBytes: 20_000_000 } }, { broker: { conf: ['max_packet_size 30000000'] } });
    t.after(stop);
    const ana = await bridge.client();
    broker.process.kill('SIGSTOP');
    const answer = ana.write('insert', 'c', 'r', { text: 'x'.repeat(19_000_000) }); // more than the sockets hold
    ana.send({ type: 'ping' });
    await ana.take('pong');
    broker.process.kill('SIGCONT');
    assert.equal((await answer).type, 'ack');
});

test('a database that is not the broker\'s is not read', async (t) => {
    const { broker, bridge, stop } = await startBoth();
    t.after(stop);
    const other = await Broker.start();
    t.after(() => other.stop());
    const collection = unique('c');
    const device = await other.client();
    await device.short(collection, 'r', 'insert', { theirs: true });
    const misled = new Bridge(broker);
    fs.writeFileSync(misled.file, String(fs.readFileSync(misled.file)).replace(broker.database, other.database));
    await misled.start();
    t.after(() => misled.stop());
    await misled.waitForLog(/MQS3017/);
    const [ana, bo] = [await misled.client(), await bridge.client()];
    assert.equal((await ana.subscribe(collection)).recordCount, 0);
    await bo.write('insert', collection, 'r', { ours: true });
    assert.deepEqual((await ana.take('insert')).data, { ours: true });
});

test('what was written while the bridge was cut off comes when it is back', async (t) => {
    const { broker, bridge, stop } = await startBoth();
    t.after(stop);
    const collection = unique('c');
    const [ana, app] = [await bridge.client(), await bridge.client(`/ws/${collection}`)];
    await ana.subscribe(collection);
    await app.subscribed(collection);
    await ana.write('insert', collection, 'gone', { a: 1 });
    await app.take('insert');
    const mark = bridge.log.length;
    bridge.process.kill('SIGSTOP');
    await broker.terminate();
    await broker.start();
    const device = await broker.client();
    await device.short(collection, 'r', 'insert', { n: 1 });
    await device.short(collection, 'r', 'update', { n: 2 });
    await device.short(collection, 'gone', 'delete');
    bridge.process.kill('SIGCONT');
    await bridge.waitForLog(/MQS3010/, mark);
    const page = await ana.take('sync');
    assert.deepEqual([page.metadata.full, page.data.records.map((r) => r.data), page.data.deleted.map((r) => r.id)],
        [false, [{ n: 2 }], ['gone']]);
    assert.deepEqual((await app.take({ recordId: 'r' })).data, { n: 2 });
    assert.equal((await app.take({ recordId: 'gone' })).type, 'delete');
    await device.short(collection, 'r', 'update', { n: 3 });
    assert.deepEqual((await ana.take('update')).data, { n: 3 });
    assert.deepEqual((await app.take('update')).data, { n: 3 });
});

test('the bridge is killed: no acknowledged write is lost, clients go on by seq', async (t) => {
    const { broker, bridge, stop } = await startBoth();
    t.after(stop);
    const collection = unique('c');
    const ana = await bridge.client();
    const { seq, epoch } = await ana.subscribe(collection);
    const acked = [];
    const writes = Array.from({ length: 300 }, (_, i) => ana.write('insert', collection, `r${i}`, { i }).then((m) => acked.push(m.recordId), () => {}));
    await Promise.race(writes.slice(100));
    await bridge.kill();
    bridge.write({});
    await bridge.start();
    const again = await bridge.client();
    const { records } = await again.subscribe(collection, { since: seq, epoch });
    assert.ok(acked.length > 0);
    for (const id of acked) {
        assert.ok(records.has(id), id);
    }
    const device = await broker.client();
    await device.short(collection, 'later', 'insert', {});
    await again.take({ recordId: 'later' });
});

test('a reader that does not read costs sendQueueBytes, disturbs nobody, and catches up', async (t) => {
    const { broker, bridge, stop } = await startBoth({ bridge: { sendQueueBytes: 200_000 } });
    t.after(stop);
    const collection = unique('c');
    const [slow, quick] = [await bridge.client('/ws', { perMessageDeflate: false }), await bridge.client()];
    const { seq } = await slow.subscribe(collection);
    await quick.subscribe(collection);
    slow.socket.pause();
    const device = await broker.client();
    const text = 'x'.repeat(20_000);
    const last = 1000;
    for (let i = 1; i <= last; i++) {
        await device.short(collection, `r${i % 10}`, i <= 10 ? 'insert' : 'update', { i, text });
    }
    await quick.take({ seq: seq + last });
    assert.ok(await bridge.metric('queue_bytes') <= 200_000);
    assert.ok(await bridge.metric('collapses_total') > 0);
    slow.socket.resume();
    const state = new Map();
    for (let at = seq; at < seq + last;) {
        const m = await slow.next();
        if (m.type === 'sync') {
            at = m.metadata.seq;
            m.data.records.forEach((r) => state.set(r.id, r.data));
        } else {
            assert.equal(m.metadata.seq, at + 1);
            at = m.metadata.seq;
            state.set(m.recordId, { ...state.get(m.recordId), ...m.data });
        }
    }
    assert.deepEqual([...state.values()].map((d) => d.i).sort((a, b) => a - b), Array.from({ length: 10 }, (_, i) => last - 9 + i));
    await device.short(collection, 'r1', 'update', { i: 0 });
    assert.deepEqual((await slow.take('update')).data, { i: 0 });
});

for (const database of [true, false]) {
    test(`a collapse sends nobody back behind what he has been sent, ${database ? 'database' : 'broker'}`, async (t) => {
        const { broker, bridge, stop } = await startBoth({ bridge: { sendQueueBytes: 8000 } }, { database });
        t.after(stop);
        const collection = unique('c');
        const app = await bridge.client(`/ws/${collection}`);
        let at = (await app.subscribed(collection)).seq;
        const device = await broker.client();
        await device.short(collection, 'own', 'insert', {});
        const text = 'x'.repeat(700);
        const rounds = 500;
        for (let i = 1; i <= rounds; i++) {
            // the app's own change is looked up, since the device has changed that record too: a page amid events
            const burst = [];
            for (let n = 0; n < 20; n++) {
                burst.push(device.short(collection, `r${n}`, 'insert', { i, text }));
                if (n % 4 === 0) {
                    burst.push(device.short(collection, 'own', 'update', { device: i }));
                    app.send({ type: 'update', collection, recordId: 'own', data: { app: i } });
                }
            }
            await Promise.all(burst);
        }
        t.diagnostic(`${await bridge.metric('collapses_total')} collapses`);
        await device.short(collection, 'last', 'insert', {});
        for (let last = false; !last;) {
            const m = await app.take((x) => x.metadata?.seq !== undefined);
            last = m.recordId === 'last' || m.data?.records?.some((r) => r.id === 'last');
            // a page of one may go with an event
            assert.ok(m.metadata.seq > at || (m.type === 'sync' && m.metadata.seq === at),
                `${m.metadata.seq} after ${at}: ${JSON.stringify(m).slice(0, 200)}`);
            at = m.metadata.seq;
        }
    });
}

test('what is deleted before an app has been told of older deletions is told once, in its turn', async (t) => {
    const { broker, bridge, stop } = await startBoth();
    t.after(stop);
    const collection = unique('c');
    const device = await broker.client();
    const text = 'x'.repeat(700_000);
    await device.short(collection, 'gone', 'insert', {});
    await device.short(collection, 'gone', 'delete');
    // with one of these sizes it is the last page that waits for the client to read
    for (let big = 0; big < 14; big++) {
        await Promise.all(['a', 'b', 'c'].map((id) => device.short(collection, id, 'insert', { big })));
        await device.short(collection, `big${big}`, 'insert', { text });
        const app = await bridge.client(`/ws/${collection}`, { perMessageDeflate: false });
        app.socket.pause();
        await sleep(100);
        await Promise.all(['a', 'b', 'c'].map((id) => device.short(collection, id, 'delete')));
        app.socket.resume();
        const end = `end${big}`;
        await device.short(collection, end, 'insert', {});
        await app.take((m) => m.recordId === end || m.data?.records?.some((r) => r.id === end));
        const deleted = (await app.rest()).filter((m) => m.type === 'delete').map((m) => m.metadata.seq);
        assert.deepEqual(deleted, [...new Set(deleted)].sort((x, y) => x - y), `in order, none twice, after ${big} large records`);
        await app.close();
    }
});

test('idle connections are closed, those that send or only ping are not', async (t) => {
    const { bridge, stop } = await startBoth({ bridge: { idleTimeoutSeconds: 2 } });
    t.after(stop);
    const [idle, pinging] = [await bridge.client(), await bridge.client()];
    const timer = setInterval(() => pinging.socket.ping(), 200);
    t.after(() => clearInterval(timer));
    await idle.waitClosed();
    assert.equal(pinging.closed, undefined);
    pinging.send({ type: 'ping' });
    await pinging.take('pong');
});

test('the port: paths, origins, metrics; a clean stop says 1001', async (t) => {
    const { broker, bridge, stop } = await startBoth({ bridge: { allowedOrigins: ['https://good.example'] } });
    t.after(() => (bridge.exit ? broker.stop() : stop()));
    assert.deepEqual([(await bridge.get('/healthz')).status, (await bridge.get('/nothing')).status], [200, 404]);
    assert.equal(JSON.parse((await bridge.get('/nothing')).text).type, 'error');
    for (const where of ['/', '/wsx', '/ws/', '/ws/a,', '/ws/a/b']) {
        const client = await bridge.client(where);
        assert.equal(client.refused?.status, 404, where);
        assert.equal(JSON.parse(client.refused.body).type, 'error');
    }
    assert.equal((await bridge.client('/ws', { origin: 'https://bad.example' })).refused.status, 403);
    const client = await bridge.client('/ws', { origin: 'https://good.example' });
    await client.subscribe('c');
    await client.write('insert', 'c', 'r', {});
    assert.equal(await bridge.metric('connections'), 1);
    assert.equal(await bridge.metric('subscriptions'), 1);
    assert.equal(await bridge.metric('upstream_up'), 1);
    assert.equal(await bridge.metric('command_to_event_seconds_count'), 1);
    await bridge.stop();
    assert.equal((await client.waitClosed()).code, 1001);
});

test('fragments, compression, many messages at once', async (t) => {
    const { bridge, stop } = await startBoth();
    t.after(stop);
    const collection = unique('c');
    const [plain, deflating] = [await bridge.client('/ws', { perMessageDeflate: false }),
        await bridge.client('/ws', { perMessageDeflate: { threshold: 0 } })];
    assert.equal(deflating.socket.extensions, 'permessage-deflate');
    assert.equal(plain.socket.extensions, '');
    const others = [await bridge.client('/ws', { perMessageDeflate: false }), await bridge.client('/ws', { perMessageDeflate: { threshold: 0 } })];
    await Promise.all(others.map((client) => client.subscribe(collection)));
    let n = 0;
    const text = Array.from({ length: 60_000 }, () => Math.random().toString(36)[2] ?? 'x').join('');
    for (const client of [plain, deflating]) {
        const message = JSON.stringify({ type: 'insert', collection, recordId: `big${n++}`, data: { text } });
        for (let at = 0; at < message.length; at += 7000) {
            client.socket.send(message.slice(at, at + 7000), { fin: at + 7000 >= message.length });
        }
        for (let i = 0; i < 500; i++) {
            client.send({ type: 'insert', collection, recordId: `r${n++}`, data: { i } });
        }
    }
    for (const client of others) {
        for (let i = 0; i < n; i++) {
            const m = await client.take('insert');
            assert.ok(!m.recordId.startsWith('big') || m.data.text === text);
        }
    }
});

test('compressed messages of many clients at once', async (t) => {
    const { bridge, stop } = await startBoth();
    t.after(stop);
    const clients = await Promise.all(Array.from({ length: 8 }, () => bridge.client()));
    for (let i = 0; i < 30; i++) {
        const answers = clients.map((client, j) => client.write('insert', 'c', `r${j}`, { i, text: `${j}`.repeat(500 + (i * 977 + j * 541) % 6000) }));
        assert.deepEqual((await Promise.all(answers)).map((answer) => answer.type), Array(8).fill('ack'));
    }
    const { records } = await clients[0].subscribe('c');
    records.forEach(({ data }, id) => assert.equal(data.text.replaceAll(id[1], ''), '', id));
    // RSV1 says that it is compressed, and it is not
    clients[1].socket._socket.write(Buffer.concat([Buffer.from([0xc1, 0x80 | 100, 0, 0, 0, 0]), Buffer.alloc(100, 0xff)]));
    await clients[1].waitClosed();
    assert.equal((await clients[2].write('insert', 'c', 'r2', {})).type, 'ack');
});

test('a client that wants a small window gets no compression rather than a wrong one', async (t) => {
    const { bridge, stop } = await startBoth();
    t.after(stop);
    const client = await bridge.client('/ws', { perMessageDeflate: { serverMaxWindowBits: 9, threshold: 0 } });
    assert.equal(client.socket.extensions, '');
    await client.subscribe('c');
    const writer = await bridge.client();
    const text = Array.from({ length: 3000 }, (_, i) => i).join(' ').repeat(2);
    await writer.write('insert', 'c', 'r', { text });
    assert.equal((await client.take('insert')).data.text, text);
});

test('TLS', async (t) => {
    const { broker, bridge, stop } = await startBoth();
    t.after(stop);
    const file = (name) => path.join(broker.directory, name);
    const made = spawnSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2',
        '-subj', '/CN=localhost', '-keyout', file('key.pem'), '-out', file('cert.pem')]);
    assert.equal(made.status, 0, String(made.stderr));
    const secure = await Bridge.start(broker, { bridge: { tls: { certFile: file('cert.pem'), keyFile: file('key.pem') } } });
    t.after(() => secure.stop());
    const client = new WsClient(secure, secure.url().replace('ws:', 'wss:'), { ca: fs.readFileSync(file('cert.pem')),
        checkServerIdentity: () => undefined });
    secure.clients.add(client);
    await client.open();
    await client.subscribe('c');
    const other = await bridge.client();
    await other.write('insert', 'c', 'r', { a: 1 });
    assert.equal((await client.take('insert')).recordId, 'r');
});

test('--check-config, --help, --version and wrong arguments', async (t) => {
    const { broker, bridge, stop } = await startBoth();
    t.after(stop);
    const run = (...args) => spawnSync(bridgeProgram, args, { encoding: 'utf8' });
    assert.equal(run('--check-config', '--config', bridge.file).status, 0);
    const bad = path.join(broker.directory, 'bad.json');
    fs.writeFileSync(bad, '{"bridge":{"listen":1}}');
    const checked = run('--check-config', '--config', bad);
    assert.equal(checked.status, 1);
    assert.match(checked.stderr, /MQS3002.*bad\.json.*bridge\.listen/);
    fs.writeFileSync(bad, '{"auth":{"jwt":{"algorithm":"HS256","keyFile":"/nowhere"}}}');
    assert.match(run('--check-config', '--config', bad).stderr, /keyFile.*\/nowhere/);
    const files = path.join(broker.directory, 'files');
    fs.mkdirSync(files);
    const { publicKey } = crypto.generateKeyPairSync('ec', { namedCurve: 'prime256v1' });
    fs.writeFileSync(path.join(files, 'public.pem'), publicKey.export({ type: 'spki', format: 'pem' }));
    const password = (text) => {
        const name = path.join(files, 'password');
        fs.writeFileSync(name, text);
        return name;
    };
    const listen = '127.0.0.1:0';
    for (const [config, says] of [
        [{ bridge: { listen, username: 'b', passwordFile: '/nowhere' } }, /bridge\.passwordFile.*\/nowhere.*bad\.json/],
        [{ bridge: { listen, passwordFile: '/nowhere' } }, /bridge\.passwordFile.*\/nowhere.*bad\.json/],
        [{ bridge: { listen, username: 'b', passwordFile: files } }, /bridge\.passwordFile.*files: Is a directory.*bad\.json/],
        [{ bridge: { listen, username: 'b', passwordFile: '/dev/null' } }, /bridge\.passwordFile.*\/dev\/null is empty/],
        [{ bridge: { listen, username: 'b', passwordFile: password('x'.repeat(1025)) } }, /bridge\.passwordFile.*1024 bytes/],
        [{ bridge: { listen, tls: { certFile: '/dev/null', keyFile: '/dev/null' } } }, /certFile: \/dev\/null: no start line/],
        [{ bridge: { listen, tls: { certFile: '/nowhere', keyFile: '/nowhere' } } }, /bridge\.tls\.certFile.*\/nowhere.*bad\.json/],
        [{ bridge: { listen, tls: { certFile: bad, keyFile: bad } } }, /bridge\.tls\.certFile.*bad\.json/],
        [{ auth: { jwt: { keyFile: path.join(files, 'public.pem') } } }, /auth\.jwt\.keyFile.*HS256 takes a secret.*bad\.json/],
    ]) {
        fs.writeFileSync(bad, JSON.stringify(config));
        for (const args of [['--check-config'], []]) {
            const { status, stderr } = run('--config', bad, ...args);
            assert.equal(status, 1, stderr);
            assert.match(stderr, says);
        }
    }
    const long = password(`${'x'.repeat(1024)}\n`);
    fs.writeFileSync(bad, JSON.stringify({ bridge: { listen, username: 'b', passwordFile: long } }));
    assert.equal(run('--check-config', '--config', bad).status, 0);
    assert.match(run('--help').stdout, /usage: mqsync-bridge/);
    assert.match(run('--version').stdout, /mqsync-bridge \d+\.\d+/);
    assert.equal(run('--nonsense').status, 2);
    assert.equal(run('--config', bridge.file, 'more').status, 2);
    const taken = path.join(broker.directory, 'taken.json');
    fs.writeFileSync(taken, JSON.stringify({ bridge: { listen: `127.0.0.1:${bridge.port}` } }));
    const second = run('--config', taken);
    assert.equal(second.status, 1);
    assert.match(second.stderr, /MQS3008.*bridge\.listen/);
});
