obj-m := template.o
