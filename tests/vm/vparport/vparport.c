// SPDX-License-Identifier: MIT
/*
 * A parallel port whose peripheral is a test.
 *
 * The module registers a port with the kernel's parport core, as the driver of a card does; ppdev then makes
 * /dev/parportN for it. The other end of its cable is /dev/vparport, in lines of text.
 *
 * A line written is a command; write() fails with EINVAL for another, ENODEV if there is no port, EBUSY if there is one:
 *
 *   status VALUE        drive the status lines: bits 3 to 7 of the register as the computer reads it
 *   drive VALUE | none  drive the data lines, or let go of them
 *   ack COUNT           pulse nAck low and high, COUNT times
 *   unplug              take the card out
 *   plug [output]       put a card in; `output`: one whose data lines cannot be read
 *
 * A rising nAck is an interrupt where control bit 4 is set. It arrives in a real interrupt (an IPI), and `ack` waits for
 * its handler. What is read:
 *
 *   port N              parportN; -1: no card
 *   data VALUE, control VALUE, status VALUE
 *   interrupts N        raised since the module was loaded
 *   writes N            writes to the data and control registers since then
 *   write NS REGISTER VALUE   of these the last ones, oldest first; NS is CLOCK_MONOTONIC
 */

#include <linux/irq_work.h>
#include <linux/ktime.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/parport.h>
#include <linux/seq_file.h>
#include <linux/spinlock.h>
#include <linux/uaccess.h>

#define DIRECTION_INPUT 0x20
#define INTERRUPT_ENABLE 0x10
#define CONTROL_LINES 0x0f
#define CONTROL_RESET 0x0c
#define STATUS_LINES 0xf8
#define STATUS_NACK 0x40
#define STATUS_IDLE 0xd8 /* nError, Select, nAck high; PaperEnd and Busy low */
#define PULLED_UP 0xff /* data lines that nobody drives */
#define NOBODY -1
#define IRQ_NUMBER 0 /* any but PARPORT_IRQ_NONE: the port has interrupts */
#define WRITES_KEPT 256
#define MAX_COMMAND_BYTES 64

struct write_record {
	u64 at_ns;
	const char *register_name;
	u8 value;
};

/* Guards what follows it. Taken in interrupts too: ppdev writes the control register there. */
static DEFINE_SPINLOCK(lines_lock);
static u8 data_latch, control = CONTROL_RESET, status = STATUS_IDLE;
static int peripheral_data = NOBODY;
static u64 write_count;
static struct write_record write_records[WRITES_KEPT];

/* Guards what follows it. Never taken inside an operation of the port: the parport core calls these while we plug. */
static DEFINE_MUTEX(card_lock);
static struct parport *card;
static u64 interrupt_count;

/* ---- the computer's side ---- */

static void record_write(const char *register_name, u8 value)
{
	struct write_record *record = &write_records[write_count++ % WRITES_KEPT];

	*record = (struct write_record){ ktime_get_ns(), register_name, value };
}

static void set_data(u8 value)
{
	unsigned long flags;

	spin_lock_irqsave(&lines_lock, flags);
	data_latch = value;
	record_write("data", value);
	spin_unlock_irqrestore(&lines_lock, flags);
}

/* Returns the register as it is then. A 1 of `value` outside `mask` inverts its bit: so does parport_pc. */
static u8 change_control(u8 mask, u8 value)
{
	unsigned long flags;

	spin_lock_irqsave(&lines_lock, flags);
	control = (control & ~mask) ^ value;
	record_write("control", control);
	value = control;
	spin_unlock_irqrestore(&lines_lock, flags);
	return value;
}

static u8 data_lines(void)
{
	if (!(READ_ONCE(control) & DIRECTION_INPUT))
		return READ_ONCE(data_latch);
	return READ_ONCE(peripheral_data) == NOBODY ? PULLED_UP : READ_ONCE(peripheral_data);
}

static void op_write_data(struct parport *port, unsigned char value)
{
	set_data(value);
}

static unsigned char op_read_data(struct parport *port)
{
	return data_lines();
}

static void op_write_control(struct parport *port, unsigned char value)
{
	change_control(CONTROL_LINES, value & CONTROL_LINES);
}

static unsigned char op_read_control(struct parport *port)
{
	return READ_ONCE(control) & CONTROL_LINES;
}

static unsigned char op_frob_control(struct parport *port, unsigned char mask, unsigned char value)
{
	return change_control(mask & CONTROL_LINES, value & CONTROL_LINES) & CONTROL_LINES;
}

static unsigned char op_read_status(struct parport *port)
{
	return READ_ONCE(status);
}

static void op_enable_irq(struct parport *port)
{
	change_control(INTERRUPT_ENABLE, INTERRUPT_ENABLE);
}

static void op_disable_irq(struct parport *port)
{
	change_control(INTERRUPT_ENABLE, 0);
}

static void op_data_forward(struct parport *port)
{
	change_control(DIRECTION_INPUT, 0);
}

static void op_data_reverse(struct parport *port)
{
	if (port->modes & PARPORT_MODE_TRISTATE)
		change_control(DIRECTION_INPUT, DIRECTION_INPUT);
}

static void op_init_state(struct pardevice *device, struct parport_state *state)
{
	state->u.pc.ctr = CONTROL_RESET | (device->irq_func ? INTERRUPT_ENABLE : 0);
}

static void op_save_state(struct parport *port, struct parport_state *state)
{
	state->u.pc.ctr = READ_ONCE(control);
}

static void op_restore_state(struct parport *port, struct parport_state *state)
{
	change_control(0xff, state->u.pc.ctr);
}

static struct parport_operations operations = {
	.write_data = op_write_data,
	.read_data = op_read_data,
	.write_control = op_write_control,
	.read_control = op_read_control,
	.frob_control = op_frob_control,
	.read_status = op_read_status,
	.enable_irq = op_enable_irq,
	.disable_irq = op_disable_irq,
	.data_forward = op_data_forward,
	.data_reverse = op_data_reverse,
	.init_state = op_init_state,
	.save_state = op_save_state,
	.restore_state = op_restore_state,
	.epp_write_data = parport_ieee1284_epp_write_data,
	.epp_read_data = parport_ieee1284_epp_read_data,
	.epp_write_addr = parport_ieee1284_epp_write_addr,
	.epp_read_addr = parport_ieee1284_epp_read_addr,
	.ecp_write_data = parport_ieee1284_ecp_write_data,
	.ecp_read_data = parport_ieee1284_ecp_read_data,
	.ecp_write_addr = parport_ieee1284_ecp_write_addr,
	.compat_write_data = parport_ieee1284_write_compat,
	.nibble_read_data = parport_ieee1284_read_nibble,
	.byte_read_data = parport_ieee1284_read_byte,
	.owner = THIS_MODULE,
};

/* ---- the peripheral's side ---- */

static void deliver(struct irq_work *work)
{
	parport_irq_handler(IRQ_NUMBER, card);
}

static DEFINE_IRQ_WORK(interrupt, deliver);

/* The mutex is held, so that the card stays in until the handler has run. */
static void set_status(u8 value)
{
	unsigned long flags;
	bool raises;

	spin_lock_irqsave(&lines_lock, flags);
	raises = value & ~status & STATUS_NACK && control & INTERRUPT_ENABLE && card;
	status = value & STATUS_LINES;
	spin_unlock_irqrestore(&lines_lock, flags);
	if (!raises)
		return;
	interrupt_count++;
	irq_work_queue(&interrupt);
	irq_work_sync(&interrupt);
}

/* The mutex is taken for each pulse: the card can be taken out amid a flood. */
static int acknowledge(unsigned int count)
{
	int error = 0;

	while (count-- && !error) {
		mutex_lock(&card_lock);
		if (card) {
			set_status(status & ~STATUS_NACK);
			set_status(status | STATUS_NACK);
		} else {
			error = -ENODEV;
		}
		mutex_unlock(&card_lock);
		if (fatal_signal_pending(current))
			error = -EINTR;
		cond_resched();
	}
	return error;
}

static struct miscdevice peripheral;

static int plug(unsigned int modes)
{
	struct parport *port;

	if (card)
		return -EBUSY;
	port = parport_register_port(0, IRQ_NUMBER, PARPORT_DMA_NONE, &operations);
	if (!port)
		return -ENOMEM;
	port->modes = modes;
	port->dev = peripheral.this_device;
	set_data(0);
	change_control(0xff, CONTROL_RESET);
	card = port;
	parport_announce_port(port);
	return 0;
}

/* Whoever has the port open keeps it, with operations that do nothing, until he closes it. */
static int unplug(void)
{
	struct parport *port = card;

	if (!port)
		return -ENODEV;
	parport_remove_port(port);
	card = NULL;
	parport_del_port(port);
	return 0;
}

static int execute_on_card(const char *command)
{
	unsigned int value;

	if (sscanf(command, "status %i", &value) == 1 && !(value & ~STATUS_LINES)) {
		set_status(value);
		return 0;
	}
	if (sysfs_streq(command, "unplug"))
		return unplug();
	if (sysfs_streq(command, "plug"))
		return plug(PARPORT_MODE_PCSPP | PARPORT_MODE_TRISTATE | PARPORT_MODE_SAFEININT);
	if (sysfs_streq(command, "plug output"))
		return plug(PARPORT_MODE_PCSPP | PARPORT_MODE_SAFEININT);
	return -EINVAL;
}

static int execute(const char *command)
{
	unsigned int value;
	int error;

	if (sscanf(command, "ack %u", &value) == 1)
		return acknowledge(value);
	if (sysfs_streq(command, "drive none")) {
		WRITE_ONCE(peripheral_data, NOBODY);
		return 0;
	}
	if (sscanf(command, "drive %i", &value) == 1 && value <= 0xff) {
		WRITE_ONCE(peripheral_data, value);
		return 0;
	}
	mutex_lock(&card_lock);
	error = execute_on_card(command);
	mutex_unlock(&card_lock);
	return error;
}

static ssize_t peripheral_write(struct file *file, const char __user *text, size_t size, loff_t *position)
{
	char command[MAX_COMMAND_BYTES + 1] = "";
	int error;

	if (size > MAX_COMMAND_BYTES)
		return -EINVAL;
	if (copy_from_user(command, text, size))
		return -EFAULT;
	error = execute(command);
	return error ? error : size;
}

static void show_writes(struct seq_file *report)
{
	u64 number = write_count > WRITES_KEPT ? write_count - WRITES_KEPT : 0;

	for (; number < write_count; number++) {
		const struct write_record *record = &write_records[number % WRITES_KEPT];

		seq_printf(report, "write %llu %s 0x%02x\n", record->at_ns, record->register_name, record->value);
	}
}

static int show_report(struct seq_file *report, void *unused)
{
	mutex_lock(&card_lock);
	seq_printf(report, "port %d\n", card ? card->number : -1);
	seq_printf(report, "interrupts %llu\n", interrupt_count);
	mutex_unlock(&card_lock);
	spin_lock_irq(&lines_lock);
	seq_printf(report, "data 0x%02x\ncontrol 0x%02x\nstatus 0x%02x\n", data_lines(), control, status);
	seq_printf(report, "writes %llu\n", write_count);
	show_writes(report);
	spin_unlock_irq(&lines_lock);
	return 0;
}

static int peripheral_open(struct inode *inode, struct file *file)
{
	file->private_data = NULL; /* misc_open leaves something there, seq_file wants its own */
	return single_open(file, show_report, NULL);
}

static const struct file_operations peripheral_operations = {
	.owner = THIS_MODULE,
	.open = peripheral_open,
	.read = seq_read,
	.write = peripheral_write,
	.llseek = seq_lseek,
	.release = single_release,
};

static struct miscdevice peripheral = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "vparport",
	.fops = &peripheral_operations,
	.mode = 0600,
};

static int __init vparport_init(void)
{
	int error = misc_register(&peripheral);

	if (error)
		return error;
	error = execute("plug");
	if (error)
		misc_deregister(&peripheral);
	return error;
}

static void __exit vparport_exit(void)
{
	execute("unplug");
	misc_deregister(&peripheral);
}

module_init(vparport_init);
module_exit(vparport_exit);
MODULE_DESCRIPTION("A parallel port whose peripheral is a test");
MODULE_LICENSE("Dual MIT/GPL");
