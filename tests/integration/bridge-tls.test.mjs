// SPDX-License-Identifier: BSD-3-Clause
// TLS on both sides of the bridge: certificates that change while connections go on, and whom the bridge believes.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { after, test } from 'node:test';
import tls from 'node:tls';
import { Bridge, WsClient } from '../lib/bridge.mjs';
import { Broker } from '../lib/broker.mjs';

function openssl(...args) {
    const { status, stderr } = spawnSync('openssl', args, { encoding: 'utf8' });
    assert.equal(status, 0, stderr);
}

const broker = await Broker.start({});
after(() => broker.stop());
const file = (name) => path.join(broker.directory, name);

/** NAME.pem and NAME.key, self-signed. */
function make(name, key, ...more) {
    openssl('req', '-x509', '-newkey', ...key, '-nodes', '-days', '2', '-subj', `/CN=${name}`, '-keyout', file(`${name}.key`),
        '-out', file(`${name}.pem`), ...more);
}
const rsa = ['rsa:2048'];
const ec = ['ec', '-pkeyopt', 'ec_paramgen_curve:P-256'];
make('first', rsa);
make('second', ec);
make('localhost', ec, '-addext', 'subjectAltName=DNS:localhost');

function install(name, key = name) {
    fs.copyFileSync(file(`${name}.pem`), file('cert.pem'));
    fs.copyFileSync(file(`${key}.key`), file('key.pem'));
}

async function start(t, config, options) {
    const bridge = await Bridge.start(broker, config, options);
    t.after(() => bridge.stop());
    return bridge;
}

const served = { bridge: { tls: { certFile: file('cert.pem'), keyFile: file('key.pem') } } };

async function secureClient(bridge) {
    const client = new WsClient(bridge, bridge.url().replace('ws:', 'wss:'), { rejectUnauthorized: false });
    bridge.clients.add(client);
    return client.open();
}

/** A TLS connection, its protocol and whose certificate was shown; throws what kept it from being made. */
function handshake(bridge, options = {}) {
    return new Promise((resolve, reject) => {
        const socket = tls.connect({ port: bridge.port, host: '127.0.0.1', rejectUnauthorized: false, ...options }, () => {
            resolve({ name: socket.getPeerCertificate().subject.CN, protocol: socket.getProtocol(), alpn: socket.alpnProtocol });
            socket.destroy();
        });
        socket.on('error', reject);
    });
}

test('a new certificate is shown after SIGHUP, and who is connected stays', async (t) => {
    install('first');
    const bridge = await start(t, served);
    assert.match(bridge.log, /MQS3029: showing the certificate in \S+cert\.pem, valid until \d{4}-\d\d-\d\d/);
    const client = await secureClient(bridge);
    assert.equal((await handshake(bridge)).name, 'first');
    const reload = async (says) => {
        const mark = bridge.log.length;
        bridge.process.kill('SIGHUP');
        await bridge.waitForLog(says, mark);
    };
    install('second');
    await reload(/MQS3029/);
    assert.equal((await handshake(bridge)).name, 'second');
    // one that knows only the old kind of key is not shown the old certificate either
    await assert.rejects(handshake(bridge, { maxVersion: 'TLSv1.2', ciphers: 'ECDHE-RSA-AES128-GCM-SHA256' }));
    // what cannot be used changes nothing
    install('second', 'first');
    await reload(/error mqsync-bridge MQS3028: keeping the certificate as it was: bridge\.tls\.keyFile: \S+key\.pem: /);
    fs.writeFileSync(file('cert.pem'), 'nonsense');
    await reload(/MQS3028: .*bridge\.tls\.certFile: /);
    openssl('rsa', '-aes128', '-passout', 'pass:secret', '-in', file('first.key'), '-out', file('key.pem'));
    fs.copyFileSync(file('first.pem'), file('cert.pem'));
    await reload(/MQS3028: .*bridge\.tls\.keyFile: /);
    fs.rmSync(file('cert.pem'));
    await reload(/MQS3028: .*No such file/);
    assert.equal((await handshake(bridge)).name, 'second');
    const late = await secureClient(bridge);
    await late.subscribe('c');
    await client.write('insert', 'c', 'r', {});
    await late.take('insert');
    // other files
    bridge.write({ bridge: { tls: { certFile: file('first.pem'), keyFile: file('first.key') } } });
    await reload(/MQS3029/);
    assert.equal((await handshake(bridge)).name, 'first');
    assert.deepEqual([await client.rest(), await late.rest()], [[], []]);
});

test('TLS 1.2 and 1.3, HTTP/1.1, and nothing older', async (t) => {
    install('first');
    const bridge = await start(t, served);
    assert.equal((await handshake(bridge)).protocol, 'TLSv1.3');
    assert.equal((await handshake(bridge, { maxVersion: 'TLSv1.2' })).protocol, 'TLSv1.2');
    await assert.rejects(handshake(bridge, { minVersion: 'TLSv1', maxVersion: 'TLSv1.1', ciphers: 'DEFAULT:@SECLEVEL=0' }));
    assert.equal((await handshake(bridge, { ALPNProtocols: ['h2', 'http/1.1'] })).alpn, 'http/1.1');
    // what is no TLS disturbs nobody
    await assert.rejects(bridge.get('/healthz'));
    await (await secureClient(bridge)).rest();
});

test('a flood of writes over TLS, faster than the broker takes them, holds up nobody', async (t) => {
    install('first');
    const bridge = await start(t, served);
    const { frame, handshake: request } = await import('../lib/raw-ws.mjs');
    const count = 4000;
    const writes = Buffer.concat(Array.from({ length: count }, (_, i) => frame(1, JSON.stringify({ type: 'insert', collection: 'flood', recordId: `r${i % 50}`,
        data: { i, pad: 'x'.repeat(60) }, metadata: { mutationId: `m${i}` } }))));
    let acknowledged = 0;
    const socket = tls.connect({ port: bridge.port, host: '127.0.0.1', rejectUnauthorized: false }, () => socket.write(request()));
    t.after(() => socket.destroy());
    socket.on('error', () => {});
    socket.on('data', (chunk) => {
        if (String(chunk).startsWith('HTTP/1.1 101')) {
            socket.write(writes);
        }
        acknowledged += String(chunk).split('"mutationId"').length - 1;
        bridge.waiters.wake();
    });
    // one that is cut in two by a chunk is not seen
    await bridge.waiters.until(() => acknowledged > count * 0.9, () => `${count} acks; ${acknowledged} have come`);
    assert.equal((await handshake(bridge)).name, 'first');
});

test('a certificate that cannot be used stops the start', async () => {
    install('first', 'second');
    const bridge = new Bridge(broker, served);
    bridge.spawn();
    await bridge.exited;
    assert.equal(bridge.exit.code, 1);
    assert.match(bridge.log, /MQS3008: bridge\.tls\.keyFile: /);
});

test('too many connections are told so over TLS', async (t) => {
    install('first');
    const bridge = await start(t, { bridge: { ...served.bridge, maxConnections: 1 } });
    const client = await secureClient(bridge);
    assert.equal((await secureClient(bridge)).refused.status, 503);
    await client.rest();
});

test('mqtts: a broker is believed only with a certificate of a known authority for its own name', async (t) => {
    const secure = await Broker.start({
        ports: 2,
        write: (b) => [...b.pluginLines(), `listener ${b.ports[0]} 127.0.0.1`, 'allow_anonymous true',
            `listener ${b.ports[1]} 127.0.0.1`, `certfile ${file('localhost.pem')}`, `keyfile ${file('localhost.key')}`],
    });
    t.after(() => secure.stop());
    const at = (host) => ({ bridge: { broker: `mqtts://${host}:${secure.ports[1]}` } });
    const known = { env: { SSL_CERT_FILE: file('localhost.pem') } };
    const [good, stranger, misnamed] = [new Bridge(secure, at('localhost'), known), new Bridge(secure, at('localhost')),
        new Bridge(secure, at('127.0.0.1'), known)];
    t.after(() => Promise.all([good, stranger, misnamed].map((bridge) => bridge.stop())));
    await Promise.all([good.start(), stranger.start({ up: false }), misnamed.start({ up: false })]);
    // answers that TLS brings many of in one record, and records of many TLS records
    const client = await good.client();
    for (const size of [1, 900000])
        await Promise.all(Array.from({ length: size > 1 ? 4 : 1000 }, (_, i) => client.write('insert', 'c', `r${size}-${i}`, { text: 'x'.repeat(size) })));
    await Promise.all([stranger, misnamed].map((bridge) => bridge.waitForLog(/MQS3011: cannot connect to the broker/)));
    for (const bridge of [stranger, misnamed]) {
        assert.equal((await bridge.get('/healthz')).status, 503);
        assert.doesNotMatch(bridge.log, /MQS3010/);
    }
});
