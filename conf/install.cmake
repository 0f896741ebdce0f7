# SPDX-License-Identifier: BSD-3-Clause
# Install rules, and the Debian packages mosquitto-plugin-mqsync and mqsync-bridge: cpack --preset release

# Debian's Mosquitto keeps plugins with the libraries of its architecture.
if(CMAKE_LIBRARY_ARCHITECTURE AND EXISTS /etc/debian_version)
  set(plugin_dir lib/${CMAKE_LIBRARY_ARCHITECTURE})
else()
  set(plugin_dir ${CMAKE_INSTALL_LIBDIR})
endif()
set(MQSYNC_PLUGIN_DIR ${plugin_dir} CACHE STRING "Where the broker's plugin goes, below the prefix")
set(MQSYNC_CONF_DIR /etc/mqsync CACHE PATH "Where mqsync.json goes")
set(package mosquitto-plugin-mqsync)
set(doc_dir ${CMAKE_INSTALL_DATAROOTDIR}/doc/${package})

if(TARGET mosquitto_mqsync)
  install(TARGETS mosquitto_mqsync LIBRARY DESTINATION ${MQSYNC_PLUGIN_DIR} COMPONENT plugin)
endif()
if(TARGET mqsyncctl)
  install(TARGETS mqsyncctl RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR} COMPONENT plugin)
endif()

# docs/man/NAME.SECTION, compressed as Debian wants them
find_program(GZIP gzip REQUIRED)
file(GLOB man_pages CONFIGURE_DEPENDS docs/man/*.[1-8])
if(NOT TARGET mqsync-bridge)
  list(FILTER man_pages EXCLUDE REGEX mqsync-bridge)
endif()
set(compressed_pages "")
foreach(page ${man_pages})
  get_filename_component(name ${page} NAME)
  string(REGEX MATCH "[1-8]$" section ${name})
  set(compressed ${CMAKE_CURRENT_BINARY_DIR}/man/${name}.gz)
  file(MAKE_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR}/man)
  add_custom_command(OUTPUT ${compressed} COMMAND ${GZIP} -9nc ${page} > ${compressed} DEPENDS ${page} VERBATIM)
  list(APPEND compressed_pages ${compressed})
  if(name MATCHES mqsync-bridge)
    set(component bridge)
  else()
    set(component plugin)
  endif()
  install(FILES ${compressed} DESTINATION ${CMAKE_INSTALL_MANDIR}/man${section} COMPONENT ${component})
endforeach()
if(compressed_pages)
  add_custom_target(man ALL DEPENDS ${compressed_pages})
endif()

# The changelog, compressed and in the place that Debian wants
set(changelog ${CMAKE_CURRENT_BINARY_DIR}/changelog.gz)
add_custom_command(OUTPUT ${changelog} COMMAND ${GZIP} -9nc ${CMAKE_SOURCE_DIR}/CHANGELOG.md > ${changelog}
  DEPENDS CHANGELOG.md VERBATIM)
add_custom_target(changelog ALL DEPENDS ${changelog})
install(FILES ${changelog} DESTINATION ${doc_dir} COMPONENT plugin)

# The example as it is to be copied to /etc/mosquitto/conf.d, with the plugin where this installation has it
file(READ conf/mosquitto.conf example)
string(REPLACE "/usr/lib/x86_64-linux-gnu/" "${CMAKE_INSTALL_PREFIX}/${MQSYNC_PLUGIN_DIR}/" example "${example}")
string(REPLACE "/etc/mqsync/" "${MQSYNC_CONF_DIR}/" example "${example}")
file(WRITE ${CMAKE_CURRENT_BINARY_DIR}/mqsync.conf "${example}")
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/mqsync.conf conf/acl.example DESTINATION ${doc_dir}/examples COMPONENT plugin)
install(FILES LICENSE RENAME copyright DESTINATION ${doc_dir} COMPONENT plugin)
install(FILES conf/mqsync.json DESTINATION ${MQSYNC_CONF_DIR} COMPONENT plugin)

# The bridge, with its units as they are to be used with this installation
set(components plugin)
if(TARGET mqsync-bridge)
  list(APPEND components bridge)
  install(TARGETS mqsync-bridge RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR} COMPONENT bridge)
  file(READ conf/systemd/mqsync-bridge.service unit)
  string(REPLACE "/usr/bin/mqsync-bridge" "${CMAKE_INSTALL_FULL_BINDIR}/mqsync-bridge" unit "${unit}")
  string(REPLACE "/etc/mqsync/" "${MQSYNC_CONF_DIR}/" unit "${unit}")
  file(WRITE ${CMAKE_CURRENT_BINARY_DIR}/mqsync-bridge.service "${unit}")
  install(FILES ${CMAKE_CURRENT_BINARY_DIR}/mqsync-bridge.service conf/systemd/mqsync-bridge.socket
    DESTINATION lib/systemd/system COMPONENT bridge)
  set(bridge_doc_dir ${CMAKE_INSTALL_DATAROOTDIR}/doc/mqsync-bridge)
  install(FILES conf/mqsync.json conf/acl.example conf/nginx.example DESTINATION ${bridge_doc_dir}/examples
    COMPONENT bridge)
  install(FILES LICENSE RENAME copyright DESTINATION ${bridge_doc_dir} COMPONENT bridge)
  install(FILES ${changelog} DESTINATION ${bridge_doc_dir} COMPONENT bridge)
endif()

set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_VENDOR mqsync)
# each package's description begins with a synopsis of its own
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "")
set(CPACK_PACKAGE_CONTACT "mqsync developers <mqsync@localhost>")
set(CPACK_PACKAGE_VERSION ${PROJECT_VERSION})
set(CPACK_STRIP_FILES ON)
# mqsync.json has an absolute destination
set(CPACK_SET_DESTDIR ON)
set(CPACK_INSTALL_PREFIX ${CMAKE_INSTALL_PREFIX})
set(CPACK_COMPONENTS_ALL ${components})
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PLUGIN_PACKAGE_NAME ${package})
set(CPACK_DEBIAN_PLUGIN_PACKAGE_SECTION net)
set(CPACK_DEBIAN_PLUGIN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PLUGIN_PACKAGE_DEPENDS "mosquitto (>= 2.0.11)")
set(CPACK_COMPONENT_PLUGIN_DESCRIPTION "real-time record sync for the Mosquitto broker
A plugin for the Mosquitto broker that keeps records in collections, versions
them, resolves conflicts and sends each accepted change to its subscribers over
MQTT. Comes with mqsyncctl, which looks into the database, checks it and backs
it up.")
set(CPACK_DEBIAN_PLUGIN_PACKAGE_CONTROL_EXTRA
  ${CMAKE_SOURCE_DIR}/conf/deb/postinst ${CMAKE_SOURCE_DIR}/conf/deb/postrm ${CMAKE_SOURCE_DIR}/conf/deb/conffiles)
set(CPACK_DEBIAN_PLUGIN_PACKAGE_CONTROL_STRICT_PERMISSION ON)
set(CPACK_DEBIAN_BRIDGE_PACKAGE_NAME mqsync-bridge)
set(CPACK_DEBIAN_BRIDGE_PACKAGE_SECTION net)
set(CPACK_DEBIAN_BRIDGE_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_BRIDGE_PACKAGE_DEPENDS adduser)
set(CPACK_DEBIAN_BRIDGE_PACKAGE_RECOMMENDS ${package})
set(CPACK_COMPONENT_BRIDGE_DESCRIPTION "WebSocket and HTTP endpoint for the records of mosquitto-plugin-mqsync
Lets web pages and apps that speak WebSocket share records with MQTT devices.
Runs beside the broker, or on another host. Not enabled by itself:
systemctl enable --now mqsync-bridge")
set(CPACK_DEBIAN_BRIDGE_PACKAGE_CONTROL_EXTRA ${CMAKE_SOURCE_DIR}/conf/deb/bridge/postinst
  ${CMAKE_SOURCE_DIR}/conf/deb/bridge/prerm ${CMAKE_SOURCE_DIR}/conf/deb/bridge/postrm)
set(CPACK_DEBIAN_BRIDGE_PACKAGE_CONTROL_STRICT_PERMISSION ON)
include(CPack)
