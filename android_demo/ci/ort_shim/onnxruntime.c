/* Stands in for libonnxruntime.so over the runtime inside the Python wheel, which has no such library.
 *
 * The wheel's one module is loaded as what it is, a shared object; Python is never started, as the module
 * would make an environment of ONNX Runtime then, and a process can have but one. Compiled with PYTHON_LIBRARY
 * and MODULE, two paths, and with TABLE_OFFSET, which capture.c tells.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <link.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

static pthread_once_t once = PTHREAD_ONCE_INIT;
static const void *api_base;

static void *opened(const char *path, int flags) {
  void *handle = dlopen(path, RTLD_NOW | flags);
  if (handle == NULL) {
    fprintf(stderr, "the stand-in for libonnxruntime.so cannot load %s: %s\n", path, dlerror());
    abort();
  }
  return handle;
}

static void load(void) {
  struct link_map *module;
  opened(PYTHON_LIBRARY, RTLD_GLOBAL); /* for the symbols that the module wants of Python */
  if (dlinfo(opened(MODULE, RTLD_LOCAL), RTLD_DI_LINKMAP, &module)) abort();
  api_base = (const char *)module->l_addr + TABLE_OFFSET;
}

const void *OrtGetApiBase(void) {
  pthread_once(&once, load);
  return api_base;
}

/* The bindings of Java want this symbol, too; sessions have the CPU without asking. */
void *OrtSessionOptionsAppendExecutionProvider_CPU(void *options, int use_arena) {
  (void)options;
  (void)use_arena;
  return NULL; /* no error */
}
