// SPDX-License-Identifier: BSD-3-Clause
// What nobody should send to the bridge: it stays up, and nobody else is disturbed.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { Bridge, startBoth } from '../lib/bridge.mjs';
import { unique } from '../lib/client.mjs';
import { raw } from '../lib/http.mjs';
import { frame, handshake, rawSocket, upgraded } from '../lib/raw-ws.mjs';

const { broker, bridge, stop } = await startBoth({ limits: { maxRecordBytes: 10_000 } });
after(stop);

async function works() {
    const [a, b] = [await bridge.client(), await bridge.client()];
    const collection = unique('c');
    await a.subscribe(collection);
    await b.write('insert', collection, 'r', { a: 1 });
    await a.take('insert');
    await Promise.all([a.close(), b.close()]);
}

test('what is no HTTP', async () => {
    const long = 'x'.repeat(100_000);
    for (const text of ['\0\0\0\0', 'nonsense\r\n\r\n', `GET /${long} HTTP/1.1\r\n\r\n`, `GET /ws HTTP/1.1\r\nX: ${long}\r\n\r\n`,
        'GET /ws HTTP/1.1\r\nUpgrade: websocket\r\n\r\n', handshake(`/ws?token=${'x'.repeat(9000)}`), handshake('/ws/../../etc'),
        handshake(`/ws/${'c,'.repeat(3000)}c`)]) {
        const socket = rawSocket(bridge, text);
        await socket.until(() => socket.destroyed || socket.received().length > 0, `an answer to ${text.slice(0, 60)}`);
        socket.destroy();
    }
    await works();
});

test('handshakes that are not whole, and such as are odd', async () => {
    const request = (lines) => `GET /ws HTTP/1.1\r\n${Object.entries({ Host: 'x', Upgrade: 'websocket', Connection: 'Upgrade', 'Sec-WebSocket-Version': '13',
        'Sec-WebSocket-Key': 'dGhlIHNhbXBsZSBub25jZQ==', ...lines }).filter(([, value]) => value !== undefined).map((line) => `${line.join(': ')}\r\n`).join('')}\r\n`;
    const answer = async (text) => {
        const socket = rawSocket(bridge, text);
        await socket.until(() => socket.destroyed || socket.received().includes('\r\n'), 'an answer or the end');
        socket.destroy();
        return String(socket.received()).split('\r\n')[0].slice(9);
    };
    assert.equal(await answer(request({ 'Sec-WebSocket-Key': undefined })), '400 Bad Request');
    assert.equal(await answer(request({ Host: undefined })), '400 Bad Request');
    await answer(request({ 'Sec-WebSocket-Key': 'x'.repeat(1000) }));
    await answer(request({ 'Sec-WebSocket-Key': 'x'.repeat(1000), 'Sec-WebSocket-Protocol': 'mqtt' }).replace('/ws', '/mqtt'));
    await works();
    for (const version of ['8', '14', '13, 8']) {
        const refused = await raw(bridge, request({ 'Sec-WebSocket-Version': version }));
        assert.match(refused, /^HTTP\/1\.1 400 [^]*\r\nsec-websocket-version: 13\r\n[^]*"INVALID_MESSAGE"/, version);
    }
    for (const upgrade of ['WebSocket', 'WEBSOCKET']) {
        assert.equal(await answer(request({ Upgrade: upgrade, Connection: 'keep-alive, upgrade' })), '101 Switching Protocols', upgrade);
    }
    await works();
});

test('a refused handshake is answered as HTTP/1.1, and the connection closes', async () => {
    for (const where of ['/nowhere', '/ws/a,', '/mqtt']) {
        const answer = await raw(bridge, `GET ${where} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n`
            + 'Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n');
        assert.match(answer, /^HTTP\/1\.1 40[04] [^]*\r\nconnection: close\r\n\r\n\{"type":"error",/, where);
        const [head, body] = answer.split('\r\n\r\n');
        assert.equal(Number(/content-length: (\d+)/.exec(head)[1]), body.length);
    }
    await works();
});

test('what is no WebSocket frame closes that connection alone', async () => {
    const frames = {
        'unknown opcode': frame(5, 'x'),
        'reserved bits': frame(1, 'x', { rsv: 7 }),
        'a fragmented ping': frame(9, 'x', { fin: false }),
        'a continuation of nothing': frame(0, 'x'),
        'a length of 2^63': Buffer.from([0x81, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 1, 2, 3, 4]),
    };
    for (const [what, bytes] of Object.entries(frames)) {
        const socket = await upgraded(bridge);
        const start = socket.received().length;
        socket.write(bytes);
        // told so, or closed at once
        await socket.until(() => socket.destroyed || socket.received()[start] === 0x88, what);
        socket.destroy();
    }
    await works();
});

test('endless fragments end at the limit, without and with compression', async () => {
    const socket = await upgraded(bridge);
    socket.write(frame(1, '{"type":"ping","x":"', { fin: false }));
    for (let i = 0; i < 200; i++) {
        socket.write(frame(0, 'x'.repeat(1000), { fin: false }));
    }
    await socket.until(() => socket.destroyed || socket.received().includes('message too big'), 'the end');
    assert.match(socket.received().toString('latin1'), /INVALID_MESSAGE.*message too big/s);
    socket.destroy();

    const bomb = await bridge.client('/ws', { perMessageDeflate: { threshold: 0 } });
    bomb.send(JSON.stringify({ type: 'ping', x: 'x'.repeat(20_000_000) }));
    assert.equal((await bomb.take('error')).code, 'INVALID_MESSAGE');
    await bomb.waitClosed();
    await works();
});

test('text that is no UTF-8, deep and strange JSON', async () => {
    const client = await bridge.client();
    const bad = ['', ' ', '{', '{"type":"ping"', '\u0000', '{"type":"\\ud800"}', `${'['.repeat(9000)}`, '{"type":"ping"}{"type":"ping"}',
        '{"type":"insert","collection":"..","recordId":"r","data":{}}', '{"type":"insert","collection":"a/b","recordId":"r","data":{}}',
        '{"type":"insert","collection":"+","recordId":"r","data":{}}', '{"type":"insert","collection":"c","recordId":"#","data":{}}',
        '{"type":"insert","collection":"c","recordId":"\\u0000","data":{}}', '{"type":"subscribe","collection":5}'];
    for (const text of bad) {
        client.send(text);
        assert.equal((await client.next()).code, 'INVALID_MESSAGE', text.slice(0, 60));
    }
    const socket = await upgraded(bridge);
    const start = socket.received().length;
    socket.write(frame(1, Buffer.from([0xFF, 0xFE, 0x80])));
    await socket.until(() => socket.destroyed || socket.received().length > start, 'an answer');
    socket.destroy();
    await works();
});

test('connections that come and go in every state', async () => {
    for (let round = 0; round < 5; round++) {
        const sockets = Array.from({ length: 60 }, (_, i) => rawSocket(bridge, handshake('/ws/c').slice(0, i % 3 === 0 ? 20 : undefined)));
        await Promise.all(sockets.map((socket, i) => new Promise((resolve) => {
            socket.once(i % 3 === 0 ? 'connect' : 'data', resolve);
        })));
        sockets.forEach((socket, i) => {
            if (i % 3 === 1) {
                socket.write(frame(1, `{"type":"insert","collection":"c","recordId":"r${i}","data":{}}`));
            }
            socket[i % 2 ? 'resetAndDestroy' : 'destroy']();
        });
    }
    await works();
});

test('an event cannot be hidden from its sender\'s neighbours, nor forged past the broker', async () => {
    const collection = unique('c');
    const [device, ana] = [await broker.client({ version: 5 }), await bridge.client()];
    const seen = [];
    device.mqtt.on('message', (topic, payload, packet) => seen.push(packet.properties));
    await device.subscribe(`sync/${collection}/evt/#`);
    await ana.subscribe(collection);
    await ana.write('insert', collection, 'r', { a: 1 });
    await device.event();
    const { correlationData } = seen.at(-1);
    assert.match(correlationData.toString('latin1'), /^mqsync-b/);
    // the mark of a change that is over is nobody's: the event reaches the one whose mark it was
    await device.publish(`sync/${collection}/cmd/r/update`, '{"a":2}', { properties: { correlationData } });
    assert.deepEqual((await ana.take('update')).data, { a: 2 });
});

test('two bridges beside one broker', async () => {
    const second = await Bridge.start(broker, {});
    try {
        const collection = unique('c');
        const [here, there] = [await bridge.client(), await second.client()];
        await here.subscribe(collection);
        await there.subscribe(collection);
        await here.write('insert', collection, 'r', { a: 1 });
        await there.take('insert');
        await there.write('update', collection, 'r', { a: 2 });
        await here.take('update');
        assert.deepEqual([await here.rest(), await there.rest()], [[], []]);
    } finally {
        await second.stop();
    }
});
