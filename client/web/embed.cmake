# SPDX-License-Identifier: BSD-3-Clause
# Turns the page's files into C arrays: cmake -DDIR=client/web -DOUT=web.gen.h -P embed.cmake
set(text "/* Generated from client/web; change that. */\n#ifndef MQSYNC_WEB_GEN_H\n#define MQSYNC_WEB_GEN_H\n\n")
foreach(file index.html style.css app.js)
  file(READ "${DIR}/${file}" hex HEX)
  string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${hex}")
  string(REGEX REPLACE "(0x[0-9a-f][0-9a-f],0x[0-9a-f][0-9a-f],0x[0-9a-f][0-9a-f],0x[0-9a-f][0-9a-f],0x[0-9a-f][0-9a-f],0x[0-9a-f][0-9a-f],0x[0-9a-f][0-9a-f],0x[0-9a-f][0-9a-f],)" "\\1\n" bytes "${bytes}")
  string(REGEX REPLACE "[.-]" "_" name "${file}")
  string(APPEND text "static const unsigned char mqsync_web_${name}[] = {\n${bytes}};\n\n")
endforeach()
string(APPEND text "#endif\n")
file(WRITE "${OUT}" "${text}")
