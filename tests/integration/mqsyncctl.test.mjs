// SPDX-License-Identifier: BSD-3-Clause
// mqsyncctl against what MQTT says of the same database, beside a running broker, after kill -9, and without one.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import crypto from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { after, test } from 'node:test';
import { Broker, temporaryDirectory } from '../lib/broker.mjs';
import { unique } from '../lib/client.mjs';
import { ctl, patience, program } from '../lib/env.mjs';
import { Waiters, withDeadline } from '../lib/wait.mjs';

const directory = temporaryDirectory();
const started = new Set();
after(() => {
    for (const child of started) {
        child.kill('SIGKILL');
    }
    fs.rmSync(directory, { recursive: true, force: true });
});
const fresh = (name = 'db') => path.join(directory, unique(name));

function start(args, { input, command = ctl, ...options } = {}) {
    const child = spawn(command, args, { stdio: [input === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe'], ...options });
    const run = { child, stdout: '', stderr: '', waiters: new Waiters() };
    started.add(child);
    for (const name of ['stdout', 'stderr']) {
        child[name].setEncoding('utf8');
        child[name].on('data', (text) => {
            run[name] += text;
            run.waiters.wake();
        });
    }
    if (input !== undefined) {
        child.stdin.on('error', () => {}); // it may end before it has read all
        child.stdin.end(input);
    }
    run.ended = new Promise((resolve, reject) => {
        child.once('error', reject);
        child.once('close', (code, signal) => {
            started.delete(child);
            Object.assign(run, { code, signal });
            run.waiters.wake();
            resolve(run);
        });
    });
    return run;
}

/** Runs mqsyncctl to its end, which must be an exit with the status expected. */
async function run(args, { code = 0, ...options } = {}) {
    const done = await withDeadline(start(args, options).ended, `mqsyncctl ${args.join(' ')}`, 60_000 * patience);
    assert.equal(done.signal, null, `mqsyncctl ${args.join(' ')} died of ${done.signal}\n${done.stderr}`);
    assert.equal(done.code, code, `mqsyncctl ${args.join(' ')}\nstdout: ${done.stdout.slice(0, 2000)}\nstderr: ${done.stderr.slice(0, 2000)}`);
    return done;
}

const json = async (args, options) => JSON.parse((await run([...args, '--json'], options)).stdout);
const ndjson = (text) => text.split('\n').filter(Boolean).map((line) => JSON.parse(line));
const line = (id, data, { collection = 'c', version = 1, updatedAt = '2026-01-31T12:00:00.000Z' } = {}) =>
    `{"collection":"${collection}","id":"${id}","data":${data},"version":${version},"updatedAt":"${updatedAt}"}\n`;
const grave = (id, version, updatedAt) => `${JSON.stringify({ collection: 'c', id, version, updatedAt, deleted: true })}\n`;

const EXACT = [
    '{"a":123456789012345678901234567890,"b":-0,"c":1.10,"d":1E+400,"e":9007199254740993}',
    '{"a":"\\u0000\\u001f\\/\\u00e9\\ud83d\\ude00","\\u0000":1,"é😀":[null,{"":{}}]}',
    '{"data":{"data":{"id":"x"}},"id":"\\"data\\":{","version":0,"collection":"}{","deleted":true}',
    '{}',
];

/** What a broker holds, as the lines of an export without what JSON.parse would spoil. */
async function asExport(client, collections) {
    const lines = [];
    for (const collection of collections) {
        const { records } = await client.sync(collection);
        for (const { id, data, version, updatedAt } of records.values()) {
            lines.push({ collection, id, data, version, updatedAt });
        }
    }
    return lines.sort((a, b) => (a.collection === b.collection ? Buffer.compare(Buffer.from(a.id), Buffer.from(b.id)) : a.collection < b.collection ? -1 : 1));
}

test('stat, get and export agree with MQTT, beside the broker and after kill -9', async () => {
    const broker = await Broker.start({ config: {} });
    try {
        const client = await broker.client({ version: 5, username: 'ana' });
        for (const [i, raw] of EXACT.entries()) {
            await client.short('exact', `r${i}`, 'insert', raw);
        }
        for (let i = 0; i < 60; i++) {
            await client.short('many', `é "${i}"`, 'insert', { i });
            await client.short('many', `é "${i}"`, i % 3 ? 'update' : 'delete', i % 3 ? { more: i } : '');
        }
        await client.short('gone', 'r', 'insert', {});
        await client.short('gone', 'r', 'delete', '');
        const wanted = await asExport(client, ['exact', 'many']);
        const full = await client.sync('many', { since: 0 });
        for (const running of [true, false]) {
            if (!running) {
                await broker.kill();
            }
            const db = ['--db', broker.database];
            const { stdout } = await run([...db, 'export']);
            assert.deepEqual(ndjson(stdout), wanted);
            EXACT.forEach((raw, i) => assert.ok(stdout.includes(`"id":"r${i}","data":${raw},"version":1,`), `${raw}\nin ${stdout}`));
            const withDeleted = ndjson((await run(['export', '--deleted', 'many', ...db])).stdout);
            assert.equal(withDeleted.filter((r) => r.deleted).length, 20);
            assert.ok(withDeleted.every((r) => r.deleted === undefined || (r.data === undefined && r.version === 2)));

            const stat = await json([...db, 'stat']);
            assert.equal(stat.epoch, full.epoch);
            assert.deepEqual([stat.records, stat.tombstones], [EXACT.length + 40, 21]);
            const many = stat.collections.find((c) => c.collection === 'many');
            assert.deepEqual([many.records, many.tombstones, many.seq], [40, 20, full.seq]);
            assert.match((await run([...db, 'stat'])).stdout, /^many +40 +20 +\d+$/m);

            const got = await json([...db, 'get', 'many', 'é "1"']);
            assert.deepEqual(got, { ...wanted.find((r) => r.id === 'é "1"'), seq: got.seq, userId: 'ana' });
            assert.ok((await run([...db, 'get', 'exact', 'r0'])).stdout.endsWith(`\n${EXACT[0]}\n`));
            assert.match((await run([...db, 'get', 'many', 'nobody'], { code: 1 })).stderr, /many has no record nobody/);
            assert.match((await run([...db, 'get', 'nothing', 'r0'], { code: 1 })).stderr, /no record/);
            const gone = await run([...db, 'get', 'many', 'é "0"', '--json'], { code: 1 });
            assert.match(gone.stderr, /deleted/);
            assert.equal(JSON.parse(gone.stdout).deleted, true);
            assert.equal((await run([...db, 'export', 'gone'])).stdout, '');
            assert.match((await run([...db, 'export', 'nothing'], { code: 1 })).stderr, /no collection "nothing"/);
            assert.deepEqual(await json([...db, 'check']), { ok: true, wrong: [] });
        }
        await broker.start();
        const again = await broker.client({ version: 5 });
        assert.deepEqual(await asExport(again, ['exact', 'many']), wanted, 'readers have changed nothing');
        await broker.stop();
    } finally {
        await broker.kill();
        broker.removeDirectory();
    }
});

test('export into import gives the same export, and a broker serves it', async () => {
    const deep = `{"a":${'['.repeat(511)}${']'.repeat(511)}}`; // as deep as the broker takes it
    const broker = await Broker.start({ config: {} });
    const other = new Broker({ config: {} });
    try {
        const client = await broker.client({ version: 5 });
        for (const [i, raw] of [...EXACT, deep].entries()) {
            await client.short('c', `r${i}`, 'insert', raw);
            await client.short('c', `r${i}`, 'update', '{"twice":1.0}');
        }
        await client.short('c', 'gone', 'insert', '{}');
        await client.short('c', 'gone', 'delete');
        const file = fresh('export');
        assert.deepEqual(await json(['--db', broker.database, 'export', '--deleted', '-o', file]), { records: 5, tombstones: 1, damaged: 0 });
        const exported = fs.readFileSync(file, 'utf8');
        const db = ['--db', other.database];
        assert.deepEqual(await json([...db, 'import', file]), { lines: 6, inserted: 6, updated: 0, skipped: 0, refused: 0, complete: true });
        assert.equal((await run([...db, 'export', '--deleted'])).stdout, exported);
        const before = await json([...db, 'stat']);
        assert.deepEqual(await json([...db, 'import', '-'], { input: exported }), { lines: 6, inserted: 0, updated: 0, skipped: 6, refused: 0, complete: true });
        const stat = await json([...db, 'stat']);
        assert.deepEqual([stat.collections, stat.epoch], [before.collections, before.epoch], 'the second time changes nothing');
        assert.deepEqual(await json([...db, 'check']), { ok: true, wrong: [] });

        await other.start();
        const reader = await other.client({ version: 5 });
        const state = await reader.sync('c', { since: 0 });
        assert.deepEqual([...state.records.values()].map((r) => r.version), [2, 2, 2, 2, 2]);
        // Versions go on where the file's ended, over deletion too.
        await reader.short('c', 'gone', 'insert', '{"back":1}');
        assert.equal((await reader.read('c', 'gone')).version, 3);
        assert.match((await run([...db, 'import', file], { code: 2 })).stderr, /in use by process \d+.*\n.*stop the broker first/);
        assert.match((await run([...db, 'compact'], { code: 2 })).stderr, /stop the broker first/);
        await Promise.all([broker.stop(), other.stop()]);
    } finally {
        for (const one of [broker, other]) {
            await one.kill();
            one.removeDirectory();
        }
    }
});

test('export writes through a link, and replaces none', async () => {
    const db = fresh();
    await run(['--db', db, 'import'], { input: line('r', '{"a":1}') });
    const [target, link] = [fresh('target'), fresh('link')];
    fs.writeFileSync(target, 'before');
    fs.symlinkSync(target, link);
    await run(['--db', db, 'export', '-o', link]);
    assert.ok(fs.lstatSync(link).isSymbolicLink());
    assert.equal(fs.readFileSync(target, 'utf8'), line('r', '{"a":1}'));
    assert.deepEqual(fs.readdirSync(directory).filter((name) => name.endsWith('.part')), []);
});

test('import: newer wins, versions never go back, wrong lines are named', async () => {
    const db = ['--db', fresh()];
    const at = (s) => `2026-01-31T12:00:${s}.000Z`;
    const record = async (id) => json([...db, 'get', 'c', id]);
    await run([...db, 'import'], { input: line('a', '{"v":1}', { version: 7, updatedAt: at('10') }) + grave('b', 4, at('10')) });
    assert.equal((await record('a')).version, 7);
    const later = await json([...db, 'import'], {
        input: line('a', '{"v":"older"}', { version: 99, updatedAt: at('09') }) + // loses
            line('b', '{ "back" : [ 1.0 ] }', { version: 2, updatedAt: at('11') }), // newer than the deletion, but 2 has been used
    });
    assert.deepEqual([later.skipped, later.updated, later.inserted], [1, 1, 0]);
    assert.deepEqual([(await record('a')).data, (await record('a')).version], [{ v: 1 }, 7]);
    assert.match((await run([...db, 'get', 'c', 'b', '--json'])).stdout, /"data":\{"back":\[1\.0\]\},"version":5,/);
    await run([...db, 'import'], { input: line('a', '{"v":2}', { version: 12, updatedAt: '2026-01-31T13:00:12+01:00' }) });
    assert.deepEqual([(await record('a')).version, (await record('a')).updatedAt], [12, at('12')]);

    // A time that has not come yet counts as now, and is known again.
    const future = line('f', '{}', { updatedAt: '2199-01-01T00:00:00Z' }) + grave('g', 1, '2199-01-01T00:00:00Z');
    assert.equal((await json([...db, 'import'], { input: future })).inserted, 2);
    assert.ok(Date.parse((await record('f')).updatedAt) <= Date.now());
    assert.equal((await json([...db, 'import'], { input: future })).skipped, 2);

    const wrong = [
        ['{', /:2: /],
        ['[]', /:2: expected a JSON object/],
        [line('x', '{"a":1,"a":2}').trim(), /:2: data: /],
        [line('x', '[]').trim(), /:2: data: expected an object/],
        [line('x/y', '{}').trim(), /:2: id: /],
        [line('x', '{}', { collection: '..' }).trim(), /:2: collection: /],
        [line('x', '{}', { version: 0 }).trim(), /:2: version: /],
        [line('x', '{}', { version: '"1"' }).trim(), /:2: version: /],
        [line('x', '{}', { updatedAt: '2026-01-31T12:00:00' }).trim(), /:2: updatedAt: .*zone/],
        ['{"collection":"c","id":"x","version":1,"updatedAt":"2026-01-31T12:00:00Z"}', /:2: data: expected an object/],
        ['{"collection":"c","id":"x","data":{},"version":1,"updatedAt":"2026-01-31T12:00:00Z","deleted":true}', /:2: data: not expected/],
        ['{"collection":"c","id":"x","data":{}', /:2: /],
        [`${'['.repeat(100000)}`, /:2: /],
    ];
    for (const [i, [text, pattern]] of wrong.entries()) {
        const input = `${line(`before${i}`, '{}')}${text}\n\n${line(`after${i}`, '{}')}`;
        const stopped = await run([...db, 'import', '--json'], { code: 1, input });
        assert.match(stopped.stderr, pattern, text.slice(0, 200));
        assert.deepEqual(JSON.parse(stopped.stdout), { lines: 2, inserted: 1, updated: 0, skipped: 0, refused: 1, complete: false });
        const went = await json([...db, 'import', '--keep-going'], { code: 1, input });
        assert.deepEqual(went, { lines: 4, inserted: 1, updated: 0, skipped: 1, refused: 1, complete: true });
    }
    assert.deepEqual(await json([...db, 'check']), { ok: true, wrong: [] });
    await run([...db, 'import', fresh('missing')], { code: 2 });
});

test('watch follows changes over a kill and a restart of the broker', async () => {
    const broker = await Broker.start({ config: {} });
    try {
        let client = await broker.client({ version: 5, username: 'ana' });
        await client.short('c', 'before', 'insert', '{}');
        const watch = start(['--db', broker.database, 'watch', 'c', '--json']);
        const lines = () => ndjson(watch.stdout.slice(0, watch.stdout.lastIndexOf('\n') + 1));
        const until = (n) => watch.waiters.until(() => {
            assert.equal(watch.code, undefined, watch.stderr);
            return lines().length >= n;
        }, () => `${n} lines of watch; there are:\n${watch.stdout}${watch.stderr}`);
        await until(1);
        const { epoch, seq } = await client.sync('c');
        assert.deepEqual(lines()[0], { collection: 'c', epoch, seq });
        await client.short('c', 'new', 'insert', EXACT[0]);
        await until(2);
        await client.short('c', 'before', 'update', '{"x":1}');
        await until(3);
        await client.short('c', 'before', 'delete');
        await until(4);
        assert.deepEqual(lines().slice(1).map((l) => [l.type, l.id, l.version, l.userId]),
            [['insert', 'new', 1, 'ana'], ['update', 'before', 2, 'ana'], ['delete', 'before', 3, 'ana']]);
        assert.ok(watch.stdout.includes(`"data":${EXACT[0]},`));
        for (const kill of [true, false]) {
            await broker.restart({ kill });
            client = await broker.client({ version: 5 });
            const n = lines().length;
            await client.short('c', unique(), 'insert', '{}');
            await until(n + 1);
        }
        const { records, deleted } = await client.sync('c', { since: 0 });
        const all = start(['--db', broker.database, 'watch', 'c', '--since', '0']);
        const shown = records.size + deleted.size;
        await all.waiters.until(() => all.stdout.split('\n').length > shown, () => `${shown} changes:\n${all.stdout}`);
        assert.match(all.stdout, /delete before {2}version 3/);
        for (const one of [watch, all]) {
            one.child.kill('SIGINT');
            const { code, signal } = await withDeadline(one.ended, 'watch to end');
            assert.deepEqual([code, signal, one === watch ? one.stderr : ''], [0, null, '']);
        }
        const seqs = lines().slice(1).map((l) => l.seq);
        assert.deepEqual(seqs, [...new Set(seqs)].sort((a, b) => a - b), 'each change once, in order');
        await broker.stop();
    } finally {
        await broker.kill();
        broker.removeDirectory();
    }
});

test('backup beside a writing broker, restore with a new epoch, compact', async () => {
    const broker = await Broker.start({ config: {} });
    try {
        const client = await broker.client({ version: 5 });
        for (let i = 0; i < 200; i++) {
            await client.short('c', `r${i}`, 'insert', { i });
        }
        const wanted = await asExport(client, ['c']);
        let writing = true;
        const writer = (async () => {
            for (let i = 0; writing; i++) {
                await client.short('c', `later${i}`, 'insert', '{}');
            }
        })();
        const copy = fresh('backup');
        const backup = await json(['--db', broker.database, 'backup', copy]);
        writing = false;
        await writer;
        assert.ok(backup.bytes > 0 && backup.directory === copy);
        assert.match((await run(['--db', broker.database, 'backup', copy], { code: 2 })).stderr, /not empty/);
        assert.match((await run(['--db', broker.database, 'restore', copy], { code: 2 })).stderr, /stop the broker first/);
        const { epoch } = await client.sync('c');
        assert.equal((await json(['--db', copy, 'stat'])).epoch, epoch, 'a copy of the same history');
        assert.deepEqual(await json(['--db', copy, 'check']), { ok: true, wrong: [] });

        // watch goes on with what is put in place of the file it has open
        const watch = start(['--db', broker.database, 'watch', 'c', '--json']);
        await watch.waiters.until(() => watch.stdout.includes('\n'), () => 'the first line of watch');
        await broker.terminate();
        await run(['--db', broker.database, 'restore', copy]);
        const restored = await json(['--db', broker.database, 'stat']);
        assert.notEqual(restored.epoch, epoch);
        await watch.waiters.until(() => watch.stdout.includes(restored.epoch), () => `the new epoch in ${watch.stdout}${watch.stderr}`);
        await broker.start();
        const again = await broker.client({ version: 5 });
        const found = await asExport(again, ['c']);
        assert.deepEqual(found.filter((r) => !r.id.startsWith('later')), wanted);
        await again.short('c', 'fresh', 'insert', '{}');
        await watch.waiters.until(() => watch.stdout.includes('"id":"fresh"'), () => `the change after the restore in ${watch.stdout}`);
        watch.child.kill('SIGTERM');
        assert.equal((await withDeadline(watch.ended, 'watch to end')).code, 0);
        await broker.terminate();
        const before = (await run(['--db', broker.database, 'export', '--deleted'])).stdout;
        const { bytes, bytesBefore } = await json(['--db', broker.database, 'compact']);
        assert.ok(bytes <= bytesBefore);
        assert.equal((await run(['--db', broker.database, 'export', '--deleted'])).stdout, before);
        assert.equal((await json(['--db', broker.database, 'stat'])).epoch, restored.epoch);
        await run(['--db', broker.database, 'restore', fresh('missing')], { code: 2 });
        const nothing = fresh('nothing');
        await run(['--db', nothing, 'restore', fresh('missing')], { code: 2 });
        assert.ok(!fs.existsSync(nothing), 'without a backup nothing is made');
        for (const dir of [copy, broker.database]) {
            assert.equal(fs.statSync(path.join(dir, 'data.mdb')).mode & 0o777, 0o640, `${dir}: for owner and group alone`);
        }
        await run(['--db', broker.database, 'restore', broker.database], { code: 2 });
        assert.equal((await run(['--db', broker.database, 'export', '--deleted'])).stdout, before, 'a restore that fails leaves what is there');
    } finally {
        await broker.kill();
        broker.removeDirectory();
    }
});

test('a damaged database is reported or refused, and crashes nothing', async (t) => {
    const db = fresh();
    const lines = Array.from({ length: 400 }, (_, i) => line(`r${i}`, `{"marker":${i},"text":"${'x'.repeat(i)}"}`));
    await run(['--db', db, 'import'], { input: lines.join('') + grave('g', 1, '2026-01-31T12:00:00Z') });
    const whole = fs.readFileSync(path.join(db, 'data.mdb'));
    const damaged = fresh('damaged');
    fs.mkdirSync(damaged);
    const put = (bytes) => {
        fs.rmSync(path.join(damaged, 'lock.mdb'), { force: true });
        fs.writeFileSync(path.join(damaged, 'data.mdb'), bytes);
    };
    const bytes = Buffer.from(whole);
    // everywhere: a page that is free again may hold the record as well
    for (let at = bytes.indexOf('{"marker":17,'); at >= 0; at = bytes.indexOf('{"marker":17,', at + 1)) {
        bytes[at] = '['.charCodeAt(0);
    }
    put(bytes);
    const checked = await json(['--db', damaged, 'check'], { code: 1 });
    assert.deepEqual(checked, { ok: false, wrong: ['c/r17: data is not a JSON object'] });
    const exported = await run(['--db', damaged, 'export'], { code: 1 });
    assert.match(exported.stderr, /c\/r17 is damaged and left out/);
    assert.equal(ndjson(exported.stdout).length, 399);

    const statuses = new Map();
    let seed = 12345;
    const random = (n) => {
        seed = (seed * 1103515245 + 12345) % 2147483648;
        return Math.floor((seed / 2147483648) * n);
    };
    const rounds = Number(process.env.MQSYNC_DAMAGE_ROUNDS ?? 40);
    for (let round = 0; round < rounds; round++) {
        const copy = Buffer.from(whole);
        // page headers and the node pointers behind them are what can lead astray
        for (let flips = 0; flips < 1 + (round % 8); flips++) {
            const page = random(copy.length / 4096);
            copy[page * 4096 + random(round % 2 ? 4096 : 64)] ^= 1 << random(8);
        }
        put(round % 10 === 9 ? copy.subarray(0, random(copy.length)) : copy);
        let sound;
        for (const command of ['check', 'export', 'stat']) {
            const { code, signal, stdout, stderr } = await withDeadline(start(['--db', damaged, command, '--json']).ended, `${command}, round ${round}`, 20_000 * patience);
            assert.ok(signal === null && [0, 1, 2].includes(code), `round ${round}: ${command} ended with ${code} ${signal}\n${stderr}`);
            sound ??= code === 0;
            assert.ok(code === 0 || !sound, `round ${round}: ${command} finds what check does not: ${stderr}`);
            assert.ok(code === 0 || command === 'check' || stderr.length > 0, `round ${round}: ${command} said nothing`);
            assert.ok(command !== 'check' || code === 2 || JSON.parse(stdout).ok === (code === 0), `round ${round}: ${stdout}`);
            statuses.set(`${command} ${code}`, (statuses.get(`${command} ${code}`) ?? 0) + 1);
        }
    }
    t.diagnostic(JSON.stringify(Object.fromEntries(statuses)));
    assert.ok(statuses.get('check 1') > 0);
    put(Buffer.from('no database at all'));
    await run(['--db', damaged, 'stat'], { code: 2 });
    put(Buffer.alloc(0));
    assert.match((await run(['--db', damaged, 'stat'], { code: 2 })).stderr, /there is no mqsync database here/);

    // a page of noise or of nothing: an export that lacks records does not say that all is well
    for (let page = 2; page < whole.length / 4096; page++) {
        for (const fill of [() => 0, () => random(256)]) {
            const copy = Buffer.from(whole);
            for (let at = page * 4096; at < (page + 1) * 4096; at++) {
                copy[at] = fill();
            }
            put(copy);
            const { code, signal, stdout } = await withDeadline(start(['--db', damaged, 'export']).ended, `export, page ${page}`, 20_000 * patience);
            assert.ok(signal === null && (code !== 0 || ndjson(stdout).length === 400), `page ${page}: ${ndjson(stdout).length} records, exit ${code}`);
        }
    }
});

test('a data.mdb that was cut off opens when nothing is missing, and is refused otherwise', async (t) => {
    const db = fresh();
    const lines = Array.from({ length: 400 }, (_, i) => line(`r${i}`, `{"text":"${'x'.repeat(2 * i)}"}`));
    const graves = Array.from({ length: 300 }, (_, i) => grave(`r${i}`, 2, '2026-02-01T12:00:00.000Z'));
    await run(['--db', db, 'import'], { input: lines.join('') });
    await run(['--db', db, 'import'], { input: graves.join('') });
    const wanted = (await run(['--db', db, 'export', '--deleted'])).stdout;
    const whole = fs.readFileSync(path.join(db, 'data.mdb'));
    const pages = whole.length / 4096;
    const counts = { refused: 0, opened: 0 };
    for (const cut of [1, 2, 3, 5, 8, 13, 21, Math.floor(pages / 2), pages - 2]) {
        const copy = fresh('cut');
        fs.mkdirSync(copy);
        fs.writeFileSync(path.join(copy, 'data.mdb'), whole.subarray(0, whole.length - cut * 4096));
        const { code, signal, stderr } = await withDeadline(start(['--db', copy, 'import'], { input: '' }).ended, `${cut} pages cut`, 20_000 * patience);
        assert.equal(signal, null, stderr);
        if (code === 0) {
            counts.opened++;
            assert.equal((await run(['--db', copy, 'export', '--deleted'])).stdout, wanted, `${cut} pages cut`);
            continue;
        }
        counts.refused++;
        assert.equal(code, 2, stderr);
        assert.match(stderr, /cut off/);
        const broker = new Broker({ config: {}, dbPath: false, pluginOptions: [`plugin_opt_db_path ${copy}`] });
        try {
            assert.match(await broker.startRefused(), /MQS1005: .*cut off.*restore a backup/);
        } finally {
            broker.removeDirectory();
        }
    }
    t.diagnostic(JSON.stringify(counts));
    assert.ok(counts.refused >= 2, 'half of it, and all of it');
});

test('on a terminal a bar and nothing that it obeys, elsewhere neither', { skip: program('script') ? false : 'no script(1)' }, async () => {
    const db = fresh();
    const file = fresh('lines');
    fs.writeFileSync(file, Array.from({ length: 20000 }, (_, i) => line(`r${i}`, `{"i":${i}}`)).join(''));
    const copy = fresh('copy');
    for (const [args, label] of [[['import', file], 'import'], [['export', '-o', `${file}.out`], 'export'], [['backup', copy], 'backup'],
        [['restore', copy], 'restore'], [['compact'], 'compact']]) {
        const command = [ctl, '--db', db, ...args].map((word) => `'${word}'`).join(' ');
        const terminal = await run(['-qec', `stty cols 100; ${command}`, '/dev/null'], { command: program('script') });
        assert.match(terminal.stdout, new RegExp(`\\r${label} \\[#+\\] 100%  \\S+.* of \\S+.*/s  in \\d+:\\d\\d`), `${label}: ${terminal.stdout}`);
        if (label === 'backup') {
            continue; // its directory is there now
        }
        const quiet = await run(['-qec', `${command} --quiet`, '/dev/null'], { command: program('script') });
        assert.ok(!quiet.stdout.includes('%'), quiet.stdout);
        assert.equal((await run(['--db', db, ...args])).stderr, '');
    }
    await run(['--db', db, 'import'], { input: line('csi', '{"\u009bk":"a\u009b31m\u0085é"}') });
    const escaped = await run(['-qec', `'${ctl}' --db '${db}' get c csi`, '/dev/null'], { command: program('script') });
    assert.ok(escaped.stdout.includes('{"\\u009bk":"a\\u009b31m\\u0085é"}'), `obeyed by the terminal: ${JSON.stringify(escaped.stdout)}`);
    for (const words of ['get c csi --json', 'export c', 'export c -o /dev/stdout']) {
        const { stdout } = await run(['-qec', `'${ctl}' --db '${db}' ${words}`, '/dev/null'], { command: program('script') });
        assert.ok(stdout.includes('"data":{"\\u009bk":"a\\u009b31m\\u0085é"}'), `${words}: ${JSON.stringify(stdout.slice(-200))}`);
        assert.ok(!/[\u0080-\u009f]/.test(stdout), words);
    }
    assert.ok((await run(['--db', db, 'get', 'c', 'csi'])).stdout.includes('{"\u009bk":"a\u009b31m\u0085é"}'), 'byte for byte elsewhere');
    const both = await run(['-qec', `'${ctl}' --db '${db}' export`, '/dev/null'], { command: program('script') });
    assert.ok(!both.stdout.includes('%'), `records and a bar on one terminal: ${both.stdout.slice(0, 200)}`);
});

test('token signs what the configuration says', async () => {
    const secret = fresh('secret');
    const config = fresh('config');
    const write = (jwt) => fs.writeFileSync(config, JSON.stringify({ auth: { jwt } }));
    const parts = (token) => token.trim().split('.');
    const decode = (part) => JSON.parse(Buffer.from(part, 'base64url'));
    fs.writeFileSync(secret, 'quite secret\n');
    write({ keyFile: secret });
    const [header, claims, signature] = parts((await run(['--config', config, 'token', '--user', 'ana', '--role', 'staff', '--role', 'é"'])).stdout);
    assert.equal(decode(header).alg, 'HS256');
    assert.equal(crypto.createHmac('sha256', 'quite secret').update(`${header}.${claims}`).digest('base64url'), signature);
    const { iat, exp, ...rest } = decode(claims);
    assert.deepEqual(rest, { userId: 'ana', roles: ['staff', 'é"'] });
    assert.ok(exp === iat + 3600 && Math.abs(iat - Date.now() / 1000) < 60 * patience);

    for (const [algorithm, type, options, sign] of [['RS256', 'rsa', { modulusLength: 2048 }, {}],
        ['ES256', 'ec', { namedCurve: 'P-256' }, { dsaEncoding: 'ieee-p1363' }]]) {
        const { publicKey, privateKey } = crypto.generateKeyPairSync(type, options);
        const key = fresh('private');
        fs.writeFileSync(secret, publicKey.export({ type: 'spki', format: 'pem' }));
        fs.writeFileSync(key, privateKey.export({ type: 'pkcs8', format: 'pem' }));
        write({ keyFile: secret, algorithm, userClaim: 'sub', roleClaim: 'groups' });
        const { token, expiresAt } = await json(['--config', config, 'token', '--user', 'bo', '--role', 'r', '--ttl', '60', '--key', key]);
        const [h, c, s] = parts(token);
        assert.ok(crypto.verify('sha256', Buffer.from(`${h}.${c}`), { key: publicKey, ...sign }, Buffer.from(s, 'base64url')), algorithm);
        assert.deepEqual([decode(c).sub, decode(c).groups, decode(c).exp * 1000], ['bo', ['r'], Date.parse(expiresAt)]);
        assert.match((await run(['--config', config, 'token', '--user', 'bo'], { code: 2 })).stderr, /--key/);
    }
    await run(['--config', config, 'token'], { code: 2 });
    fs.writeFileSync(config, '{}');
    assert.match((await run(['--config', config, 'token', '--user', 'x'], { code: 2 })).stderr, /auth\.jwt/);
});

test('check-config says what is wrong', async () => {
    const config = fresh('config');
    fs.writeFileSync(config, '{"durability":"power"}');
    assert.match((await run(['check-config', config])).stdout, /OK/);
    assert.deepEqual(await json(['--config', config, 'check-config']), { file: config, ok: true });
    fs.writeFileSync(config, '{"durability":"both"}');
    assert.match((await run(['check-config', config], { code: 1 })).stderr, /durability/);
    assert.equal((await json(['check-config', config], { code: 1 })).ok, false);
    assert.match((await run(['--config', config, 'stat'], { code: 2 })).stderr, /durability/);
    fs.writeFileSync(config, JSON.stringify({ database: fresh() }));
    assert.match((await run(['--config', config, 'stat'], { code: 2 })).stderr, /there is no mqsync database here/);
    fs.writeFileSync(config, '{}');
    assert.match((await run(['--config', config, 'stat'], { code: 2 })).stderr, /--db/);
    const auth = { jwt: { keyFile: fresh('key') } };
    fs.writeFileSync(config, JSON.stringify({ auth }));
    await run(['check-config', config]); // the bridge's business
    fs.writeFileSync(config, JSON.stringify({ auth: { ...auth, mqtt: true } }));
    const { error } = await json(['check-config', config], { code: 1 });
    assert.ok(error.includes(config) && error.includes('auth.jwt.keyFile') && error.includes(auth.jwt.keyFile), error);
    fs.writeFileSync(auth.jwt.keyFile, 'secret');
    await run(['check-config', config]);
});

test('with its standard descriptors closed it writes into no file of the database', async () => {
    const db = fresh();
    const lines = Array.from({ length: 5000 }, (_, i) => line(`r${i}`, `{"i":${i}}`)).join('');
    await run(['--db', db, 'import'], { input: lines });
    const files = fs.readdirSync(db).filter((name) => name !== 'lock');
    const sizes = () => files.map((name) => `${name} ${fs.statSync(path.join(db, name)).size}`);
    const before = sizes();
    for (const command of ['export', 'export c', 'stat', 'watch c --since 0', 'check', 'get c r1', 'import']) {
        await run(['-c', `exec '${ctl}' --db '${db}' ${command} <&- >&- 2>&-`], { command: '/bin/sh', code: 2 });
        assert.deepEqual(sizes(), before, command);
    }
    assert.equal((await run(['--db', db, 'export'])).stdout.split('\n').length, 5001);
    await run(['--db', db, 'check']);
});

test('usage: what is wrong, and what to say instead', async () => {
    const db = fresh();
    assert.match((await run(['--help'])).stdout, /check-config/);
    assert.match((await run(['--version'])).stdout, /^mqsyncctl \d+\.\d+\.\d+\n$/);
    for (const [args, pattern] of [[[], /--help/], [['frobnicate'], /no command "frobnicate"/], [['--db', db, 'get', 'c'], /COLLECTION ID/],
        [['--db', db, 'stat', '--since', '3'], /takes no --since/], [['--db', db, 'stat', 'x'], /usage: mqsyncctl stat$/m], [['--frob'], /frob/],
        [['--db', db, 'watch', 'c', '--since', '-1'], /whole number/], [['token', '--ttl', '2147483648'], /from 1 to 2147483647/], [['--db', db, 'watch', 'a/b'], /can be no collection/],
        [['--db', db, 'stat'], /no mqsync database/], [['--db', db, 'check'], /no mqsync database/], [['--db', db, 'compact'], /no mqsync database/],
        [['--db', db, 'export'], /no mqsync database/], [['--db', db, 'backup', fresh()], /no mqsync database/]]) {
        assert.match((await run(args, { code: 2 })).stderr, pattern, args.join(' '));
    }
    assert.ok(!fs.existsSync(db), 'a question makes no database');
    // What cannot be written is no success.
    await run(['--db', db, 'import'], { input: line('a', '{}') });
    if (fs.existsSync('/dev/full')) {
        assert.match((await run(['--db', db, 'export', '-o', '/dev/full'], { code: 2 })).stderr, /write/);
    }
    assert.match((await run(['--db', db, 'export', '-o', path.join(db, 'no', 'where')], { code: 2 })).stderr, /cannot write/);
});
