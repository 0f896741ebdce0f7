// SPDX-License-Identifier: BSD-3-Clause
// Holds the documents to what the programs do. With MQSYNC_DOCS_RECORD=1 the examples are written as they come out, for
// the author to read before committing.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { repository } from '../lib/env.mjs';
import { findExamples, runExamples } from './examples.mjs';

const record = Boolean(process.env.MQSYNC_DOCS_RECORD);
const read = (file) => fs.readFileSync(path.join(repository, file), 'utf8');
const documents = ['README.md', 'CHANGELOG.md', ...fs.readdirSync(path.join(repository, 'docs'))
    .filter((name) => name.endsWith('.md')).map((name) => `docs/${name}`)];

function sources(...directories) {
    return directories.flatMap((directory) => fs.readdirSync(path.join(repository, directory), { withFileTypes: true })
        .flatMap((entry) => {
            const file = `${directory}/${entry.name}`;
            return entry.isDirectory() ? sources(file) : /\.[ch]$/.test(file) ? [file] : [];
        }));
}

const found = (text, pattern) => [...new Set([...text.matchAll(pattern)].map((match) => match[1] ?? match[0]))].sort();

/** The part of a document below a heading, to the next of the same or a higher level. */
function section(file, heading) {
    const lines = read(file).split('\n');
    const start = lines.findIndex((line) => new RegExp(`^#+ ${heading}$`).test(line));
    assert.notEqual(start, -1, `${file} has no heading "${heading}"`);
    const level = lines[start].indexOf(' ');
    const end = lines.findIndex((line, i) => i > start && /^#+ /.test(line) && line.indexOf(' ') <= level);
    return lines.slice(start, end === -1 ? undefined : end).join('\n');
}

// --- what is shown is what comes out ----------------------------------------------------------------------------

for (const file of documents) {
    const examples = findExamples(read(file));
    if (!examples.length) {
        continue;
    }
    test(`the examples of ${file}`, async (t) => {
        const results = [];
        for await (const { example, text } of runExamples(examples)) {
            results.push({ example, text });
            if (!record) {
                await t.test(`${example.kind} at line ${example.line}`, () => assert.equal(text, example.text));
            }
        }
        assert.equal(results.length, examples.length);
        if (record) {
            let document = read(file);
            for (const { example, text } of results.reverse()) {
                document = document.slice(0, example.from) + text + document.slice(example.to);
            }
            fs.writeFileSync(path.join(repository, file), document);
        }
    });
}

test('every example marked as such is one', () => {
    for (const file of documents) {
        const count = (read(file).match(/^<!-- [a-z.]+ -->$/gm) ?? []).length;
        assert.equal(findExamples(read(file)).length, count, `${file}: a mark without a block after it`);
    }
    for (const [file, least] of [['README.md', 8], ['docs/protocol.md', 20], ['docs/conversations.md', 20],
        ['docs/security.md', 20], ['docs/migration.md', 20], ['docs/troubleshooting.md', 20]]) {
        assert.ok(findExamples(read(file)).length >= least, `${file} has lost its examples`);
    }
});

// --- completeness -----------------------------------------------------------------------------------------------

test('docs/operations.md lists the log ids of the sources, and no others', () => {
    const used = found(sources('lib', 'plugin').map(read).join('\n'), /\bMQS\d{4}\b/g);
    const listed = found(section('docs/operations.md', 'Log lines'), /^\| `(MQS\d{4})`/gm);
    assert.ok(used.length > 10, 'the sources have log ids');
    assert.deepEqual(listed, used);
});

test('docs/bridge.md lists the log ids of the bridge, and no others', () => {
    const used = found(sources('bridge').filter((file) => file.endsWith('.c')).map(read).join('\n'), /"(MQS\d{4})"/g);
    const listed = found(section('docs/bridge.md', 'Log lines'), /^\| `(MQS\d{4})`/gm);
    assert.ok(used.length > 10, 'the bridge has log ids');
    assert.deepEqual(listed, used);
});

test('log ids that other documents name are listed there', () => {
    const listed = ['docs/operations.md', 'docs/bridge.md'].flatMap((file) =>
        found(section(file, 'Log lines'), /^\| `(MQS\d{4})`/gm));
    for (const file of documents) {
        for (const id of found(read(file), /\bMQS\d{4}\b/g)) {
            assert.ok(listed.includes(id), `${file}: ${id} is not in the tables of log lines`);
        }
    }
});

test('docs/operations.md lists the counters of the sources, and no others', () => {
    const used = found(read('plugin/counters.c'), /^ +\{"([a-z/]+)", /gm);
    const listed = found(section('docs/operations.md', 'Counters'), /^\| `\$SYS\/broker\/mqsync\/([a-z/]+)`/gm)
        .filter((name) => name !== 'version');
    assert.ok(used.length > 5, 'the sources have counters');
    assert.deepEqual(listed, used);
});

test('docs/operations.md lists the keys of the configuration schema, with their defaults', () => {
    const table = section('docs/operations.md', 'mqsync.json');
    const schema = JSON.parse(read('schemas/config.schema.json'));
    const follow = (ref) => ref.slice(2).split('/').reduce((at, key) => at[key], schema);
    const resolve = (node) => (node.$ref ? resolve(follow(node.$ref)) : node);
    const keys = [];
    const walk = (node, prefix) => {
        const object = resolve(node);
        for (const [key, value] of Object.entries(object.properties ?? {})) {
            const fallback = value.default ?? resolve(value).default;
            keys.push(`${prefix}${key}`);
            if ('default' in { ...resolve(value), ...value }) {
                const row = table.split('\n').find((line) => line.startsWith(`| \`${prefix}${key}\` |`));
                const shown = /^\| `.*?` \| `(.*?)` \|/.exec(row)?.[1];
                assert.equal(shown, JSON.stringify(fallback ?? null), `the default of ${prefix}${key}`);
            }
            walk(value, `${prefix}${key}.`);
        }
        if (typeof object.additionalProperties === 'object') {
            walk(object.additionalProperties, `${prefix}NAME.`);
        }
    };
    walk(schema, '');
    const listed = found(table, /^\| `([A-Za-z.]+)` \|/gm);
    assert.deepEqual(listed, keys.filter((key) => key !== '$schema').sort());
});

test('docs/protocol.md has every operation and what it carries', () => {
    const { operations } = JSON.parse(read('schemas/operations.json'));
    for (const { type, requires, optional } of operations) {
        const text = section('docs/protocol.md', `\`${type}\``);
        for (const field of [...requires, ...optional]) {
            assert.ok(text.includes(`\`${field}\``), `docs/protocol.md, ${type}: ${field} is not mentioned`);
        }
    }
    const headings = found(section('docs/protocol.md', 'Messages of the client'), /^### `([a-z]+)`$/gm);
    assert.deepEqual(headings, operations.map(({ type }) => type).sort());
});

test('docs/protocol.md has every error code, and no others', () => {
    const used = found(read('lib/error.c'), /return "([A-Z_]+)"/g).filter((name) => name !== 'OK');
    const listed = found(section('docs/protocol.md', 'Errors'), /^\| `([A-Z_]+)` \|/gm);
    assert.deepEqual(listed, used);
});

test('docs/conversations.md has every message of either side, and every error code', () => {
    const played = findExamples(read('docs/conversations.md')).filter(({ kind }) => kind === 'conversation')
        .map(({ text }) => text).join('\n');
    const { operations } = JSON.parse(read('schemas/operations.json'));
    const { $defs } = JSON.parse(read('schemas/server-messages.schema.json'));
    const answers = Object.values($defs).map(({ properties }) => properties?.type?.const).filter(Boolean).sort();
    const codes = found(read('lib/error.c'), /return "([A-Z_]+)"/g).filter((name) => name !== 'OK');
    assert.deepEqual(found(played, /^\S+ -> \{"type":"([a-z]+)"/gm), operations.map(({ type }) => type).sort());
    assert.deepEqual(found(played, /^\S+ <- \{"type":"([a-z]+)"/gm), answers);
    assert.deepEqual(found(played, /"code":"([A-Z_]+)"/g), codes);
    assert.match(played, /^\S+ <- .*"conflict":true/m);
    assert.match(played, /^\S+ connects to \/ws\/\w+,/m);
});

test('docs/protocol.md has every strategy, and no others', () => {
    const used = found(read('lib/resolve.c'), /^ +\[MQSYNC_[A-Z_]+\] = \{"([A-Za-z]+)"/gm);
    const listed = found(section('docs/protocol.md', 'Strategies'), /^#+ `([A-Za-z]+)`/gm);
    assert.ok(used.length === 9);
    assert.deepEqual(listed, used);
});

// --- links ------------------------------------------------------------------------------------------------------

const anchor = (heading) => heading.toLowerCase().replace(/[^\p{L}\p{N} _-]/gu, '').replaceAll(' ', '-');
const anchors = (text) => new Set(text.replace(/^```[^]*?^```$/gm, '').match(/^#+ .*$/gm)
    .map((line) => anchor(line.replace(/^#+ /, ''))));

test('links between the documents lead somewhere', () => {
    let links = 0;
    for (const file of documents) {
        for (const [, target] of read(file).replace(/^```[^]*?^```$/gm, '').matchAll(/\]\(([^)\s]+)\)/g)) {
            if (/^[a-z]+:/.test(target)) {
                continue;
            }
            const [name, fragment] = target.split('#');
            const other = name ? path.normalize(path.join(path.dirname(file), name)) : file;
            assert.ok(fs.existsSync(path.join(repository, other)), `${file}: ${target} is not there`);
            if (fragment) {
                assert.ok(anchors(read(other)).has(fragment), `${file}: ${target} has no such heading`);
            }
            links++;
        }
    }
    assert.ok(links > 5);
});

test('paths of this repository that the documents name are there', () => {
    for (const file of documents) {
        for (const name of found(read(file), /`((?:bridge|conf|docs|lib|plugin|schemas|tests)\/[A-Za-z0-9_./-]+)`/g)) {
            assert.ok(fs.existsSync(path.join(repository, name.replace(/\/$/, ''))), `${file}: ${name} is not there`);
        }
    }
});

test('docs/architecture.md has every file of the bridge in its table, and no others', () => {
    const rows = found(section('docs/architecture.md', 'The bridge'), /^\| (`[^|]+`) \|/gm).join();
    assert.deepEqual(found(rows, /\w+\.c\b/g), fs.readdirSync(path.join(repository, 'bridge')).filter((name) => name.endsWith('.c')).sort());
});
