"""What of other people's insides we lean on: an upgrade that moves one of these lines has to be read first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

FAUST_VERSION = "0.15.3"

# upstream function -> what of its text must still be there
BY_THE_SEAM: Mapping[str, Sequence[str]] = {
    "faust.assignor.partition_assignor:PartitionAssignor.on_assignment": (
        "b = sorted(self._assignment.kafka_protocol_assignment(self._table_manager))",
    ),
    "faust.assignor.client_assignment:ClientAssignment.kafka_protocol_assignment": (
        "if topic in table_manager.changelog_topics:",
    ),
    "faust.transport.consumer:Consumer.getmany": ("self._wait_next_records(timeout)", "await self.perform_seek()"),
    "faust.transport.consumer:Consumer._wait_next_records": (
        "await self.wait(self.can_resume_flow)",
        "active_partitions = self._get_active_partitions()",
        "await self.sleep(1)",
    ),
    "faust.transport.consumer:Consumer.resume_partitions": ("self._get_active_partitions().update(tps)",),
    "faust.transport.consumer:Consumer.perform_seek": ("await self.seek_to_committed()",),
    "faust.transport.consumer:Consumer._drain_messages": ("await self._add_gap(", "self.suspend_flow.wait()"),
    "faust.transport.consumer:Consumer._commit_tps": ("self._filter_committable_offsets(tps)",),
    "faust.transport.consumer:Consumer._filter_committable_offsets": ("self._new_offset(tp)",),
    "faust.transport.consumer:Consumer.ack": ("acked_for_tp.append(offset)", "acked_index.add(offset)"),
    "faust.transport.drivers.aiokafka:Consumer._new_consumer_thread": ("AIOKafkaConsumerThread(self",),
    "faust.transport.drivers.aiokafka:AIOKafkaConsumerThread._fetch_records": (
        "return await fetcher.fetched_records(",
    ),
    "faust.transport.drivers.aiokafka:AIOKafkaConsumerThread._seek_wait": ("consumer.seek(tp, offset)",),
    "faust.transport.drivers.aiokafka:AIOKafkaConsumerThread._create_worker_consumer": (
        "isolation_level=isolation_level",
    ),
    "faust.transport.drivers.aiokafka:AIOKafkaConsumerThread._create_consumer": ("self._create_worker_consumer(",),
    "aiokafka.consumer.subscription_state:Subscription._assign": ("self._assignment = Assignment(topic_partitions)",),
    "aiokafka.consumer.subscription_state:Assignment.__init__": ("TopicPartitionState(self)",),
    "aiokafka.consumer.subscription_state:SubscriptionState.fetch_context": ("self._fetch_count += 1",),
    "aiokafka.consumer.subscription_state:SubscriptionState.fetcher_idle_time": ("if self._fetch_count == 0:",),
    "aiokafka.consumer.group_coordinator:GroupCoordinator._push_error_to_user": ("self._pending_exception = exc",),
    "aiokafka.consumer.consumer:AIOKafkaConsumer.start": ("self._coordinator = GroupCoordinator(",),
    "aiokafka.consumer.group_coordinator:GroupCoordinator._on_join_prepare": ("self._group_subscription = None",),
    "aiokafka.consumer.group_coordinator:GroupCoordinator._perform_assignment": (
        "self._group_subscription = all_subscribed_topics",
    ),
    "aiokafka.consumer.group_coordinator:GroupCoordinator.need_rejoin": ("self._rejoin_needed_fut.done()",),
    "faust.tables.recovery:Recovery._restart_recovery": (
        "self._build_highwaters)(\n                        consumer, assigned_active_tps",
        "if self.tp_to_table[tp].recovery_buffer_size == 1",
    ),
    "faust.tables.recovery:Recovery._wait": ("raise RebalanceAgain()",),
    "faust.tables.recovery:Recovery.need_recovery": ("self.active_remaining().values()",),
    "faust.tables.recovery:Recovery._slurp_changelogs": ("table.apply_changelog_batch(buf)", "offsets[tp] = offset"),
    "faust.tables.recovery:Recovery.on_recovery_completed": ("table.on_recovery_completed(", "consumer.perform_seek()"),
    "faust.tables.manager:TableManager.recovery": ("self._recovery = Recovery(",),
    "faust.tables.manager:TableManager.on_actives_ready": ("self.actives_ready = True",),
    "faust.tables.manager:TableManager.on_rebalance_start": ("self.actives_ready = False",),
    "faust.tables.recovery:Recovery._set_recovery_started": ("self.app.in_recovery = True",),
    "faust.tables.manager:TableManager.on_rebalance": ("table.on_rebalance)(",),
    "faust.tables.base:Collection.on_start": ("self.add_runtime_dependency(self.data)",),
    "aiokafka.producer.message_accumulator:MessageAccumulator._pop_batch": (
        "seq = self._txn_manager.sequence_number(batch.tp)\n",
        "producer_id=self._txn_manager.producer_id,\n                producer_epoch=self._txn_manager.producer_epoch",
    ),
    "aiokafka.producer.sender:SendProduceReqHandler.create_request": (
        'kwargs["transactional_id"] = self._sender._txn_manager.transactional_id',
    ),
    "aiokafka.producer.transaction_manager:TransactionManager.producer_id": ("return self._pid_and_epoch.pid",),
    "aiokafka.producer.sender:SendProduceReqHandler.handle_response": ("exc = ProducerFenced()",),
}
"""By streams/owner/faust_seam.py, and faust_tables.py and epochs.py beside it."""

BY_FETCHED: Mapping[str, Sequence[str]] = {
    "aiokafka.consumer.fetcher:Fetcher._proc_fetch_request": (
        "records = MemoryRecords(part_data[-1])",
        "self._records[tp] = FetchResult(",
    ),
    "aiokafka.record.default_records:_DefaultRecordBatchPy._read_msg": (
        "buffer = self._buffer",
        'h_key = buffer[pos : pos + h_key_len].decode("utf-8")',
    ),
    "aiokafka.record.default_records:_DefaultRecordBatchPy.__iter__": ("self._maybe_uncompress()",),
    "aiokafka.consumer.fetcher:Fetcher.fetched_records": (
        "records = res_or_error.getall(max_records)",
        "drained[tp] = records",
        "assert max_records >= 0",
        "for tp in list(self._records.keys()):",
        "if not records:\n                        continue",
    ),
    "aiokafka.consumer.fetcher:FetchResult.getall": (
        "if not self.check_assignment(tp) or not self.has_more():",
        "self._update_position()\n            self._partition_records = None",
    ),
    "aiokafka.consumer.fetcher:FetchResult.check_assignment": (
        "position != self._partition_records.next_fetch_offset",
    ),
    "aiokafka.consumer.fetcher:PartitionRecords.__init__": ("self._records_iterator = self._unpack_records()",),
    "aiokafka.consumer.fetcher:PartitionRecords._unpack_records": (
        "self._consume_aborted_up_to(next_batch.base_offset)",
        "self._contains_abort_marker(next_batch)",
        "self._aborted_producers.discard(next_batch.producer_id)",
        "and next_batch.producer_id in self._aborted_producers",
        "if record.offset < self.next_fetch_offset:",
    ),
}
"""By streams/log/kafka/fetched.py and opened.py."""
