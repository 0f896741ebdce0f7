// SPDX-License-Identifier: BSD-3-Clause
// Who may do what at the bridge: tokens, rules, limits.
import assert from 'node:assert/strict';
import { createHmac, createSign, generateKeyPairSync } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { after, test } from 'node:test';
import { Bridge, token } from '../lib/bridge.mjs';
import { Broker } from '../lib/broker.mjs';
import { unique } from '../lib/client.mjs';

const secret = 'a secret of the test';
const collections = { '*': {}, notes: { read: ['user:ana', 'role:staff'], write: ['role:staff'] } };
// the bridge's user is trusted, everybody else is not
const broker = await Broker.start({ config: { collections, trustedUsers: ['the-bridge'] } });
after(() => broker.stop());
const seconds = () => Math.floor(Date.now() / 1000);

async function start(auth, more = {}) {
    const bridge = new Bridge(broker, { collections, trustedUsers: ['the-bridge'], auth, ...more,
        bridge: { username: 'the-bridge', ...more.bridge } });
    await bridge.start();
    after(() => bridge.stop());
    return bridge;
}

const keyFile = path.join(broker.directory, 'jwt.key');
fs.writeFileSync(keyFile, `${secret}\n`);
const hs256 = { jwt: { algorithm: 'HS256', keyFile } };
const bridge = await start(hs256);

const ana = (claims = {}) => token(secret, { userId: 'ana', exp: seconds() + 60, ...claims });
const staff = () => token(secret, { sub: 'stan', roles: ['staff'] });

test('both ways to authenticate; the user is on the event', async () => {
    const collection = unique('c');
    const [first, second] = [await bridge.client(), await bridge.client(`/ws?token=${staff()}`)];
    first.send({ type: 'subscribe', collection });
    assert.equal((await first.next()).code, 'UNAUTHORIZED');
    first.send({ type: 'ping' });
    assert.equal((await first.next()).type, 'pong');
    first.send({ type: 'auth', token: ana() });
    assert.equal((await first.next()).type, 'authenticated');
    await first.subscribe(collection);
    assert.equal((await second.write('insert', collection, 'r', { a: 1 })).type, 'ack');
    assert.equal((await first.take('insert')).metadata.userId, 'stan');
    await second.subscribe(collection);
    await first.write('update', collection, 'r', { a: 2 });
    assert.equal((await second.take('update')).metadata.userId, 'ana');
});

test('refused tokens: AUTH_FAILED, then 1008', async () => {
    const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
    const refused = {
        'another key': token('another', { userId: 'ana' }),
        expired: ana({ exp: seconds() - 1 }),
        'exp is no number': ana({ exp: 'tomorrow' }),
        'not yet valid': ana({ nbf: seconds() + 60 }),
        'no user': token(secret, { name: 'ana' }),
        'empty user': token(secret, { userId: '' }),
        'alg none': `${part({ alg: 'none' })}.${part({ userId: 'ana' })}.`,
        'alg none with a signature': token(secret, { userId: 'ana' }, { alg: 'none' }),
        'another algorithm': token(secret, { userId: 'ana' }, { alg: 'HS512' }),
        'an unknown critical extension': (() => {
            const text = `${part({ alg: 'HS256', crit: ['exp2'], exp2: 1 })}.${part({ userId: 'ana' })}`;
            return `${text}.${createHmac('sha256', secret).update(text).digest('base64url')}`;
        })(),
        'no signature': `${part({ alg: 'HS256' })}.${part({ userId: 'ana' })}`,
        nonsense: 'nonsense',
        'too long': 'x'.repeat(10_000),
    };
    for (const [why, text] of Object.entries(refused)) {
        const client = await bridge.client();
        client.send({ type: 'auth', token: text });
        assert.equal((await client.next()).code, 'AUTH_FAILED', why);
        assert.equal((await client.waitClosed()).code, 1008, why);
    }
    const client = await bridge.client(`/ws?token=${ana({ exp: seconds() - 1 })}`);
    assert.equal((await client.next()).code, 'AUTH_FAILED');
    assert.equal((await client.waitClosed()).code, 1008);
});

test('a token in the URL that is far too long harms nobody', async () => {
    for (const n of [9_000, 11_000, 100_000]) {
        const client = await bridge.client(`/ws?token=${'x'.repeat(n)}`);
        assert.ok(client.refused || client.closed || (await client.waitClosed()).code === 1008);
    }
    await (await bridge.client(`/ws?token=${ana()}`)).subscribe(unique('c'));
});

test('a bridge that may not say on whose behalf it writes says so', async () => {
    const other = new Bridge(broker, { collections, auth: hs256, bridge: { username: 'somebody' } });
    await other.start();
    after(() => other.stop());
    assert.match(other.log, /MQS3045/);
    const client = await other.client(`/ws?token=${ana()}`);
    assert.equal((await client.write('insert', unique('c'), 'r', {})).code, 'UNAUTHORIZED');
});

test('read and write rules, for every operation', async () => {
    const [a, s] = [await bridge.client(`/ws?token=${ana()}`), await bridge.client(`/ws?token=${staff()}`)];
    const nobody = await bridge.client(`/ws?token=${token(secret, { userId: 'nobody' })}`);
    assert.equal((await s.write('insert', 'notes', 'n', { a: 1 })).type, 'ack');
    assert.equal((await a.subscribe('notes')).records.get('n').data.a, 1);
    for (const type of ['insert', 'update', 'delete']) {
        assert.equal((await a.write(type, 'notes', 'n', type === 'delete' ? undefined : { a: 2 })).code, 'UNAUTHORIZED', type);
    }
    for (const type of ['subscribe', 'sync', 'unsubscribe']) {
        nobody.send({ type, collection: 'notes' });
        assert.equal((await nobody.next()).code, 'UNAUTHORIZED', type);
    }
    const byPath = await bridge.client(`/ws/notes?token=${token(secret, { userId: 'nobody' })}`);
    assert.equal((await byPath.next()).code, 'UNAUTHORIZED');
});

test('a token that expires while connected ends the session, unless a fresh one came', async () => {
    const soon = () => ana({ exp: seconds() + 2 });
    const [one, two] = [await bridge.client(`/ws?token=${soon()}`), await bridge.client(`/ws?token=${soon()}`)];
    two.send({ type: 'auth', token: ana({ roles: 'staff' }) });
    await two.take('authenticated');
    assert.equal((await one.next()).code, 'AUTH_FAILED');
    assert.equal((await one.waitClosed()).code, 1008);
    assert.equal((await two.write('insert', 'notes', unique('r'), {})).type, 'ack', 'with the new role');
    two.send({ type: 'auth', token: staff() });
    assert.equal((await two.take('error')).code, 'AUTH_FAILED', 'not with another user');
});

for (const [algorithm, type, options] of [['RS256', 'rsa', { modulusLength: 2048 }], ['ES256', 'ec', { namedCurve: 'P-256' }]]) {
    test(`${algorithm}`, async () => {
        const { publicKey, privateKey } = generateKeyPairSync(type, options);
        const pem = publicKey.export({ type: 'spki', format: 'pem' });
        const file = path.join(broker.directory, `${algorithm}.pem`);
        fs.writeFileSync(file, pem);
        const other = await start({ jwt: { algorithm, keyFile: file } });
        const sign = (text) => createSign('SHA256').update(text)
            .sign({ key: privateKey, dsaEncoding: 'ieee-p1363' }).toString('base64url');
        const good = await other.client(`/ws?token=${token('', { userId: 'ana' }, { alg: algorithm, sign })}`);
        await good.subscribe(unique('c'));
        // the public key is no secret: nobody may sign with it
        const forged = await other.client(`/ws?token=${token(pem, { userId: 'ana' })}`);
        assert.equal((await forged.next()).code, 'AUTH_FAILED');
        const tampered = await other.client(`/ws?token=${token('', { userId: 'ana' }, { alg: algorithm, sign: () => sign('x') })}`);
        assert.equal((await tampered.next()).code, 'AUTH_FAILED');
    });
}

test('limits: messages a minute, connections a user', async () => {
    const limited = await start(hs256, { limits: { messagesPerMinute: 5, connectionsPerUser: 2 } });
    const clients = [];
    for (let i = 0; i < 2; i++) {
        clients.push(await limited.client(`/ws?token=${ana()}`));
        await clients[i].subscribe(unique('c'));
    }
    const third = await limited.client(`/ws?token=${ana()}`);
    assert.equal((await third.next()).code, 'RATE_LIMIT_EXCEEDED');
    await third.waitClosed();
    for (let i = 0; i < 12; i++) {
        clients[i % 2].send({ type: 'ping' });
    }
    // a minute may have begun in between: then there are up to ten pongs
    assert.equal((await clients[0].take('error')).code, 'RATE_LIMIT_EXCEEDED');
    const other = await limited.client(`/ws?token=${staff()}`);
    other.send({ type: 'ping' });
    await other.take('pong');
});

test('SIGHUP: rules and key are read again, a broken file changes nothing', async () => {
    const key = path.join(broker.directory, 'turned.key');
    fs.writeFileSync(key, secret);
    const auth = { jwt: { algorithm: 'HS256', keyFile: key } };
    const turned = await start(auth);
    const client = await turned.client(`/ws?token=${ana()}`);
    await client.subscribe('notes');
    const before = fs.readFileSync(turned.file);
    fs.writeFileSync(turned.file, '{"nonsense": 1}');
    turned.process.kill('SIGHUP');
    await turned.waitForLog(/MQS3004.*nonsense/);
    await client.subscribe('notes');
    fs.writeFileSync(turned.file, String(before).replace('user:ana', 'user:bo'));
    fs.writeFileSync(key, 'turned');
    turned.process.kill('SIGHUP');
    await turned.waitForLog(/MQS3003/);
    assert.equal((await client.take('error')).code, 'UNAUTHORIZED');
    const [old, fresh] = [await turned.client(`/ws?token=${ana()}`), await turned.client(`/ws?token=${token('turned', { userId: 'bo' })}`)];
    assert.equal((await old.next()).code, 'AUTH_FAILED');
    await fresh.subscribe('notes');
});
