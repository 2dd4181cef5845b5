# What a package or a bundle holds: the program and, where it was built, the CUDA library beside it.
include(GNUInstallDirs)
install(TARGETS dsctl RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
if(TARGET dsctl_cuda)
  install(TARGETS dsctl_cuda LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}/dsctl)
endif()
